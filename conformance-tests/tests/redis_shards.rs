//! The suite on Redis, with queues that are cut into shards: order holds within each.
#![cfg(feature = "servers")]

mod redis_support;

use redis_support::OnRedis;

delayline_conformance::suite!(OnRedis::with_shards(3));
