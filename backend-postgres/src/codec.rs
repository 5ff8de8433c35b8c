//! What is in the columns: ids and headers as bytes, times as milliseconds.

use std::time::Duration;

use bytes::Bytes;
use delayline_core::{BuryCause, Due, Error, ErrorKind, GroupName, Headers, Receipt, Result, TaskId, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

/// An id as it is stored.
pub(crate) fn id_bytes(id: &TaskId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(17);
    match (id.as_uuid(), id.as_key()) {
        (Some(uuid), _) => {
            stored.push(b'u');
            stored.extend_from_slice(uuid.as_bytes());
        }
        (None, key) => {
            stored.push(b'k');
            stored.extend_from_slice(key.unwrap_or_default().as_bytes());
        }
    }
    stored
}

/// An id that was stored.
pub(crate) fn read_id(stored: &[u8]) -> Result<TaskId> {
    match stored.split_first() {
        Some((b'u', bytes)) => Uuid::from_slice(bytes).map(TaskId::from_uuid).map_err(|_| corrupt()),
        Some((b'k', bytes)) => {
            std::str::from_utf8(bytes).ok().and_then(|key| TaskId::new(key).ok()).ok_or_else(corrupt)
        }
        _ => Err(corrupt()),
    }
}

/// Headers as they are stored; nothing for none.
pub(crate) fn headers_bytes(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut stored = Vec::with_capacity(3 * headers.len() + headers.byte_len());
    for (name, value) in headers.iter() {
        // The limits of `Headers` are 128 and 16,384 bytes.
        stored.push(name.len() as u8);
        stored.extend_from_slice(name.as_bytes());
        stored.extend_from_slice(&(value.len() as u16).to_be_bytes());
        stored.extend_from_slice(value.as_bytes());
    }
    Some(stored)
}

/// Headers that were stored.
pub(crate) fn read_headers(stored: Option<&[u8]>) -> Result<Headers> {
    let mut headers = Headers::new();
    let mut rest = stored.unwrap_or_default();
    while let Some((&length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(usize::from(length)).ok_or_else(corrupt)?;
        let (length, after) = after.split_first_chunk::<2>().ok_or_else(corrupt)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, after) = after.split_at_checked(length).ok_or_else(corrupt)?;
        headers.insert(text(name)?, text(value)?).map_err(|_| corrupt())?;
        rest = after;
    }
    Ok(headers)
}

/// A group that was stored.
pub(crate) fn read_group(stored: Option<&[u8]>) -> Result<Option<GroupName>> {
    stored.map(|bytes| GroupName::new(text(bytes)?).map_err(|_| corrupt())).transpose()
}

/// A text that was stored.
pub(crate) fn text(stored: &[u8]) -> Result<String> {
    String::from_utf8(stored.to_vec()).map_err(|_| corrupt())
}

pub(crate) fn read_cause(stored: i16) -> Result<BuryCause> {
    match stored {
        1 => Ok(BuryCause::AttemptsUsedUp),
        2 => Ok(BuryCause::Expired),
        3 => Ok(BuryCause::Buried),
        _ => Err(corrupt()),
    }
}

/// The store's own note on a task: its sequence.
pub(crate) fn receipt(seq: i64) -> Receipt {
    Receipt::from_words([0, seq as u64])
}

/// What a receipt says: the sequence, nothing if there is none, and one that no task has if it is not ours.
pub(crate) fn seq_of(receipt: &Receipt) -> Option<i64> {
    match receipt.words() {
        Some([0, seq]) => Some(i64::try_from(seq).unwrap_or(-1)),
        None if *receipt == Receipt::NONE => None,
        _ => Some(-1),
    }
}

/// A time in microseconds, rounded up.
pub(crate) fn micros_ceil(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// A due time as `schedule.sql` reads it.
pub(crate) fn due_number(due: Due) -> i64 {
    match due {
        Due::After(delay) => micros_ceil(delay),
        // Beyond the largest delay is beyond, however far.
        Due::At(at) => -1 - at.unix_millis_ceil().clamp(0, 1 << 52),
    }
}

pub(crate) fn millis(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(ms)
}

/// A column of a row.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) if it is not what the statement answers.
pub(crate) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, column: usize) -> Result<T> {
    row.try_get(column).map_err(|e| corrupt().with_source(e))
}

/// A column that is a number that is not negative.
pub(crate) fn count(row: &PgRow, column: usize) -> Result<u64> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// What every task and dead letter has, from four columns that follow each other.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) group: Option<GroupName>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl Body {
    /// From the columns group, headers, payload, of which `column` is the first.
    pub(crate) fn read(row: &PgRow, column: usize) -> Result<Self> {
        Ok(Self {
            group: read_group(get(row, column)?)?,
            headers: read_headers(get(row, column + 1)?)?,
            payload: Bytes::copy_from_slice(get(row, column + 2)?),
        })
    }
}

pub(crate) fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "a row in Postgres is not what this library wrote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written() {
        for id in [TaskId::from_uuid(Uuid::from_u128(7)), TaskId::new("ü".repeat(128)).unwrap()] {
            assert_eq!(read_id(&id_bytes(&id)).unwrap(), id);
        }
        for bad in [&b""[..], b"u123", b"k", b"k\xff", b"xyz"] {
            assert_eq!(read_id(bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn headers_are_read_as_they_were_written_and_cut_ones_are_told() {
        let mut headers = Headers::new();
        assert_eq!(headers_bytes(&headers), None);
        headers.insert("traceparent", "00-ab").unwrap();
        headers.insert("empty", "").unwrap();
        headers.insert("large", "x".repeat(16_000)).unwrap();
        headers.insert("n".repeat(128), "ü").unwrap();
        let stored = headers_bytes(&headers).unwrap();
        assert_eq!(read_headers(Some(&stored)).unwrap(), headers);
        let whole = [0, 8, 8 + 16_008];
        for cut in 1..stored.len() {
            if read_headers(Some(&stored[..cut])).is_ok() {
                assert!(whole.contains(&cut) || cut > 16_000, "cut at {cut}");
            }
        }
        assert!(read_headers(Some(&stored[..stored.len() - 1])).is_err());
    }

    #[test]
    fn a_receipt_that_is_not_ours_names_no_task() {
        assert_eq!(seq_of(&receipt(7)), Some(7));
        assert_eq!(seq_of(&Receipt::NONE), None);
        assert_eq!(seq_of(&Receipt::from_words([1, 7])), Some(-1));
        assert_eq!(seq_of(&Receipt::from_bytes(b"level-3")), Some(-1));
        assert_eq!(seq_of(&Receipt::from_words([0, u64::MAX])), Some(-1));
    }
}
