//! The capabilities of a Postgres backend with a given configuration.

use std::time::Duration;

use delayline_backend_kit::times::DELAY_MAX;
use delayline_core::{Capabilities, Durability, LeaseHold, Order, Support};

use crate::config::PostgresConfig;
use crate::limits::{LEASE_MAX, NAME};

pub(crate) fn capabilities(config: &PostgresConfig, durability: Durability) -> Capabilities {
    let mut caps = Capabilities::minimal(NAME);
    caps.lease_hold = LeaseHold::Store;
    caps.durability = durability;
    caps.order = Order::Exact;
    caps.resolution = Duration::from_millis(1);
    let listens = config.listens_at().is_some();
    caps.lateness = if listens { Duration::from_millis(5) } else { config.poll_interval + Duration::from_millis(5) };
    caps.delay_max = DELAY_MAX;
    caps.lease_max = LEASE_MAX;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 10_000;
    caps.fallback_poll_interval = config.sleep_max();
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
