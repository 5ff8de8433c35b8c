//! Encodes numbers, due times and receipts for the scripts.

use delayline_backend_kit::times::micros_ceil;
use delayline_core::{Due, Error, Receipt, Result};

use crate::limits::SHARDS_MAX;

/// A number in the form that scripts read.
pub(crate) fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A due time in the form that `place_of` in `common.lua` reads.
///
/// # Errors
/// [`Unsupported`](delayline_core::ErrorKind::Unsupported) for a kind of due time that this version does not know.
pub(crate) fn due_text(due: Due) -> Result<Vec<u8>> {
    match due {
        Due::After(delay) => Ok(text(micros_ceil(delay))),
        // A time above the upper bound is beyond the maximum delay in any case.
        Due::At(at) => Ok(format!("@{}", at.unix_millis_ceil().clamp(0, 1 << 52)).into_bytes()),
        _ => Err(Error::unsupported("this kind of due time")),
    }
}

/// The receipt of a task: its shard, and its sequence in that shard.
pub(crate) fn receipt(shard: u32, seq: u64) -> Receipt {
    Receipt::from_words([u64::from(shard), seq])
}

/// The sequence in a receipt; `None` for an empty receipt, and `Err` for one that this backend did not write.
pub(crate) fn seq_of(receipt: &Receipt) -> Result<Option<u64>, ()> {
    match receipt.words() {
        Some([shard, seq]) if shard < u64::from(SHARDS_MAX) => Ok(Some(seq)),
        None if *receipt == Receipt::NONE => Ok(None),
        _ => Err(()),
    }
}
