//! The LEAK tests on Postgres, alone in this process.

#[cfg(feature = "servers")]
mod postgres_support;

#[cfg(feature = "servers")]
delayline_conformance::leak_suite!(postgres_support::OnPostgres::for_the_heap());

#[cfg(not(feature = "servers"))]
fn main() {
    println!("not tested: it needs the feature `servers`");
}
