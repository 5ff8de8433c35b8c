//! Encodes and decodes the columns: times as milliseconds, ids and headers in the kit's encoding.

use bytes::Bytes;
use delayline_backend_kit::codec as packed;
use delayline_backend_kit::times::micros_ceil;
use delayline_core::{DeadLetterCause, Due, Error, ErrorKind, GroupName, Headers, Receipt, Result, TaskId, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};

/// Decodes a stored id.
pub(crate) fn read_id(stored: &[u8]) -> Result<TaskId> {
    packed::read_id(stored).ok_or_else(corrupt)
}

/// Encodes headers; `None` for no headers.
pub(crate) fn headers_bytes(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut stored = Vec::with_capacity(packed::headers_len(headers));
    packed::push_headers(&mut stored, headers);
    Some(stored)
}

/// Decodes stored headers.
fn read_headers(stored: Option<&[u8]>) -> Result<Headers> {
    match stored {
        Some(stored) => packed::read_headers(Bytes::copy_from_slice(stored)).ok_or_else(corrupt),
        None => Ok(Headers::new()),
    }
}

/// Decodes a stored group.
fn read_group(stored: Option<&[u8]>) -> Result<Option<GroupName>> {
    stored.map(|bytes| GroupName::new(text(bytes)?).map_err(|_| corrupt())).transpose()
}

/// Decodes a stored text.
pub(crate) fn text(stored: &[u8]) -> Result<String> {
    String::from_utf8(stored.to_vec()).map_err(|_| corrupt())
}

pub(crate) fn read_cause(stored: i16) -> Result<DeadLetterCause> {
    u64::try_from(stored).ok().and_then(packed::read_cause).ok_or_else(corrupt)
}

/// The receipt of a task: its sequence.
pub(crate) fn receipt(seq: i64) -> Receipt {
    Receipt::from_words([0, seq as u64])
}

/// The sequence in a receipt; `None` for an empty receipt, and a sequence that no task has for one that this backend
/// did not write.
pub(crate) fn seq_of(receipt: &Receipt) -> Option<i64> {
    match receipt.words() {
        Some([0, seq]) => Some(i64::try_from(seq).unwrap_or(-1)),
        None if *receipt == Receipt::NONE => None,
        _ => Some(-1),
    }
}

/// A due time in the form that `schedule.sql` reads.
///
/// # Errors
/// [`Unsupported`](delayline_core::ErrorKind::Unsupported) for a kind of due time that this version does not know.
pub(crate) fn due_number(due: Due) -> Result<i64> {
    match due {
        Due::After(delay) => Ok(micros_ceil(delay)),
        // A time above the upper bound is beyond the maximum delay in any case.
        Due::At(at) => Ok(-1 - at.unix_millis_ceil().clamp(0, 1 << 52)),
        _ => Err(Error::unsupported("this kind of due time")),
    }
}

pub(crate) fn millis(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(ms)
}

/// Reads a column of a row.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) if the column does not have the expected type.
pub(crate) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, column: usize) -> Result<T> {
    row.try_get(column).map_err(|e| corrupt().with_source(e))
}

/// Reads a column that holds a non-negative number.
pub(crate) fn count(row: &PgRow, column: usize) -> Result<u64> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// The fields that tasks and dead letters share, from consecutive columns.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) group: Option<GroupName>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl Body {
    /// Reads the columns group, headers and payload, of which `column` is the first.
    pub(crate) fn read(row: &PgRow, column: usize) -> Result<Self> {
        Ok(Self {
            group: read_group(get(row, column)?)?,
            headers: read_headers(get(row, column + 1)?)?,
            payload: Bytes::copy_from_slice(get(row, column + 2)?),
        })
    }
}

pub(crate) fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "a row in Postgres is not in the format of this library")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_that_is_not_ours_names_no_task() {
        assert_eq!(seq_of(&receipt(7)), Some(7));
        assert_eq!(seq_of(&Receipt::NONE), None);
        assert_eq!(seq_of(&Receipt::from_words([1, 7])), Some(-1));
        assert_eq!(seq_of(&Receipt::from_bytes(b"level-3")), Some(-1));
        assert_eq!(seq_of(&Receipt::from_words([0, u64::MAX])), Some(-1));
    }
}
