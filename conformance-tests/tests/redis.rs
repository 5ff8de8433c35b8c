//! The suite on Redis.
#![cfg(feature = "servers")]

mod redis_support;

use redis_support::OnRedis;

delayline_conformance::suite!(OnRedis::start());
