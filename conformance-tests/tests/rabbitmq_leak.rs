//! The LEAK tests on RabbitMQ, alone in this process.

#[cfg(feature = "servers")]
mod rabbitmq_support;

#[cfg(feature = "servers")]
delayline_conformance::leak_suite!(rabbitmq_support::OnRabbit::for_the_heap());

#[cfg(not(feature = "servers"))]
fn main() {
    println!("not tested: it needs the feature `servers`");
}
