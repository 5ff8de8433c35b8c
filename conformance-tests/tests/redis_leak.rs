//! The LEAK tests on Redis, alone in this process.

#[cfg(feature = "servers")]
mod redis_support;

#[cfg(feature = "servers")]
delayline_conformance::leak_suite!(redis_support::OnRedis::start());

#[cfg(not(feature = "servers"))]
fn main() {
    println!("not tested: it needs the feature `servers`");
}
