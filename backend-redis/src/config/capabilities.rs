//! The capabilities of a Redis backend with a given configuration.

use std::time::Duration;

use delayline_backend_kit::times::DELAY_MAX;
use delayline_core::{Capabilities, LeaseHold, Order, Support};

use crate::RedisConfig;
use crate::limits::NAME;

pub(crate) fn capabilities(config: &RedisConfig) -> Capabilities {
    let mut caps = Capabilities::minimal(NAME);
    caps.durability = config.durability;
    caps.order = if config.shards == 1 { Order::Exact } else { Order::PerShard(config.shards) };
    caps.resolution = Duration::from_millis(1);
    caps.lateness = Duration::from_millis(5);
    caps.delay_max = DELAY_MAX;
    caps.lease_max = Duration::from_secs(24 * 3600);
    caps.lease_hold = LeaseHold::Store;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 10_000;
    caps.fallback_poll_interval = config.fallback_poll_interval;
    caps.operation_window = config.operation_window;
    caps.extend = Support::Definite;
    caps.cancel = Support::Definite;
    caps.reschedule = Support::Definite;
    caps.groups = Support::Definite;
    caps.replace = Support::Definite;
    caps.unique_ids = Support::Definite;
    caps.inspect = Support::Definite;
    caps.dead_letters = Support::Definite;
    caps.pause = Support::Definite;
    caps.delete = Support::Definite;
    caps.stats = Support::Definite;
    caps
}
