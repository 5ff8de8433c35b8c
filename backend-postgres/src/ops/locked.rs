//! Rows that somebody else keeps locked: how long they are waited for, and what is answered then.

use delayline_core::{Error, ErrorKind};

/// The pauses before a row that is locked is tried again, in milliseconds.
pub(super) const PAUSES_MS: [u64; 7] = [2, 5, 10, 20, 40, 80, 160];

/// The answer to a row that somebody else keeps locked.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Busy, "another transaction holds the task's row")
}
