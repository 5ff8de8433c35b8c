//! Names and limits of this backend.

use delayline_backend_kit::PieceMax;

/// What it is called, in capabilities and metrics.
pub(crate) const NAME: &str = "redis";

/// The most shards of a queue.
pub(crate) const SHARDS_MAX: u32 = 64;

/// The most items of one script, so that none holds the server up for long, and the most bytes of its arguments or answer,
/// beyond one item: a connection keeps a buffer as large as the largest.
pub(crate) const PIECE: PieceMax = PieceMax { items: 1_000, bytes: 256 << 10 };
