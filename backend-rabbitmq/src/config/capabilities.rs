//! What this backend can and can't do.

use std::time::Duration;

use delayline_core::{Capabilities, Durability, LeaseHold, Order, Support};

use super::settings::RabbitConfig;
use crate::limits::NAME;

/// How far apart tasks are in time that are delivered in order while the broker and those who consume work: beyond a commit,
/// and beyond what was sent to a consumer that did not claim it and came back.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Ten years. What the levels can't hold at one go passes its gate and goes round again.
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
