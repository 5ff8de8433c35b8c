//! Names and limits of this backend.

use delayline_backend_kit::PieceMax;

/// The backend's name in capabilities and metrics.
pub(crate) const NAME: &str = "redis";

/// Maximum number of shards of a queue.
pub(crate) const SHARDS_MAX: u32 = 64;

/// Limits of one script call. The limit on items keeps a script from blocking the server for long. The limit on the
/// bytes of arguments or reply, which a single item may exceed, bounds memory: a connection keeps a buffer of the
/// largest size.
pub(crate) const PIECE: PieceMax = PieceMax { items: 1_000, bytes: 256 << 10 };
