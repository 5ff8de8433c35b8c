//! The name of this backend, and the limits that do not depend on its configuration.

use std::time::Duration;

/// What this backend is called.
pub(crate) const NAME: &str = "postgres";

/// The farthest a due time may lie ahead: 2^40 - 1 ms, 34.8 years.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis((1 << 40) - 1);

/// The longest lease.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most items of one statement, so that none holds its locks for long.
pub(crate) const PIECE: usize = 1_000;

/// The most bytes of one statement's arguments or answer, beyond one item.
pub(crate) const PIECE_BYTES: usize = 4 << 20;
