//! The suite on RabbitMQ.
#![cfg(feature = "servers")]

mod rabbitmq_support;

use rabbitmq_support::OnRabbit;

delayline_conformance::suite!(OnRabbit::start());
