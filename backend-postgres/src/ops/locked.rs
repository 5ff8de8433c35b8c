//! Rows that another transaction keeps locked: how long to wait, and the error afterwards.

use delayline_core::{Error, ErrorKind};

/// Pauses before a locked row is tried again, in milliseconds.
pub(super) const PAUSES_MS: [u64; 7] = [2, 5, 10, 20, 40, 80, 160];

/// The error for a row that another transaction keeps locked.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Busy, "another transaction has locked the task's row: try again after it ends")
}
