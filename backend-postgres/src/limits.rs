//! The name of this backend, and the limits that do not depend on its configuration.

use std::time::Duration;

use delayline_backend_kit::PieceMax;

/// The backend's name in capabilities and metrics.
pub(crate) const NAME: &str = "postgres";

/// Maximum duration of a lease.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Limits of one statement. The limit on items keeps a statement from holding its locks for long. A single item may
/// exceed the limit on the bytes of arguments or answer.
pub(crate) const PIECE: PieceMax = PieceMax { items: 1_000, bytes: 4 << 20 };
