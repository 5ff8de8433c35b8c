//! The capabilities of a RabbitMQ backend with a given configuration.

use std::time::Duration;

use delayline_core::{Capabilities, Durability, LeaseHold, Order, Support};

use super::settings::RabbitConfig;
use crate::limits::NAME;

/// Tasks that are due further apart than this are delivered in order, while the broker and its consumers work normally.
/// It covers the time of a commit, and of a task's way back from a consumer that did not claim it.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Ten years. A task with a delay too long for the levels arrives at its gate early, and passes through the levels
/// again.
const DELAY_MAX: Duration = Duration::from_secs(3_652 * 86_400);

pub(crate) fn of(config: &RabbitConfig) -> Capabilities {
    let mut caps = Capabilities::minimal(NAME);
    caps.durability = Durability::Disk;
    caps.order = Order::Within(TOLERANCE);
    caps.resolution = Duration::from_millis(1);
    caps.lateness = Duration::from_millis(50);
    caps.delay_max = DELAY_MAX;
    caps.lease_max = config.lease_max;
    caps.lease_hold = LeaseHold::Connection;
    caps.payload_bytes_max = config.payload_bytes_max;
    caps.batch_max = 10_000;
    caps.fallback_poll_interval = config.fallback_poll_interval;
    caps.extend = Support::Definite;
    caps.cancel = Support::Requested;
    caps.reschedule = Support::Requested;
    caps.change_needs_receipt = true;
    caps.dead_letters = Support::Definite;
    caps
}
