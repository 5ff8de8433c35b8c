//! The name of this backend, and the limits that do not depend on its configuration.

use std::time::Duration;

use delayline_backend_kit::PieceMax;

/// What this backend is called.
pub(crate) const NAME: &str = "postgres";

/// The longest lease.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most items of one statement, so that none holds its locks for long, and the most bytes of its arguments or answer,
/// beyond one item.
pub(crate) const PIECE: PieceMax = PieceMax { items: 1_000, bytes: 4 << 20 };
