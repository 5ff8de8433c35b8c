//! Ids, headers and numbers as bytes, in the form that stores keep. This form must never change, because it is on disk.

use bytes::Bytes;
use delayline_core::{DeadLetterCause, Headers, TaskId};
use uuid::Uuid;

/// Encodes an id: `u` and the 16 bytes of a UUID, or `k` and the caller's text.
#[must_use]
pub fn id_bytes(id: &TaskId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(17);
    push_id(&mut stored, id);
    stored
}

/// Appends an id, encoded as in [`id_bytes`].
pub fn push_id(to: &mut Vec<u8>, id: &TaskId) {
    match (id.as_uuid(), id.as_key()) {
        (Some(uuid), _) => {
            to.push(b'u');
            to.extend_from_slice(uuid.as_bytes());
        }
        (None, key) => {
            to.push(b'k');
            to.extend_from_slice(key.unwrap_or_default().as_bytes());
        }
    }
}

/// Decodes what [`id_bytes`] wrote; `None` for anything else.
#[must_use]
pub fn read_id(stored: &[u8]) -> Option<TaskId> {
    match stored.split_first()? {
        (b'u', bytes) => Uuid::from_slice(bytes).ok().map(TaskId::from_uuid),
        (b'k', bytes) => TaskId::new(std::str::from_utf8(bytes).ok()?).ok(),
        _ => None,
    }
}

/// Number of bytes that [`push_headers`] appends.
#[must_use]
pub fn headers_len(headers: &Headers) -> usize {
    3 * headers.len() + headers.byte_len()
}

/// Appends headers. For each: the length of its name in one byte, the name, the length of its value in two bytes, the
/// value.
pub fn push_headers(to: &mut Vec<u8>, headers: &Headers) {
    for (name, value) in headers.iter() {
        // `Headers` limits these lengths to 128 and 16,384 bytes.
        to.push(name.len() as u8);
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(&(value.len() as u16).to_be_bytes());
        to.extend_from_slice(value.as_bytes());
    }
}

/// Decodes what [`push_headers`] wrote; `None` for anything else.
#[must_use]
pub fn read_headers(stored: Bytes) -> Option<Headers> {
    let mut headers = Headers::new();
    let mut from = Reader::new(stored);
    while !from.is_empty() {
        let name = from.number(1)?;
        let name = from.text(name as usize)?;
        let value = from.number(2)?;
        headers.insert(name, from.text(value as usize)?).ok()?;
    }
    Some(headers)
}

/// Decodes the number by which scripts and statements store the cause of a dead letter; `None` for an unused number.
#[must_use]
pub fn read_cause(stored: u64) -> Option<DeadLetterCause> {
    match stored {
        1 => Some(DeadLetterCause::AttemptsUsedUp),
        2 => Some(DeadLetterCause::Expired),
        3 => Some(DeadLetterCause::Requested),
        _ => None,
    }
}

/// Reads stored bytes from front to back. Every method returns `None` if too few bytes are left.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// Creates a reader that starts at the front.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of bytes that are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The next `n` bytes, without copying them.
    pub fn take(&mut self, n: usize) -> Option<Bytes> {
        (n <= self.0.len()).then(|| self.0.split_to(n))
    }

    /// A big-endian number of `bytes` bytes, at most eight.
    pub fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// A UTF-8 text of `n` bytes.
    pub fn text(&mut self, n: usize) -> Option<String> {
        String::from_utf8(self.take(n)?.to_vec()).ok()
    }

    /// All bytes that are left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written() {
        for id in [TaskId::from_uuid(Uuid::from_u128(7)), TaskId::new("ü".repeat(128)).unwrap()] {
            assert_eq!(read_id(&id_bytes(&id)).unwrap(), id);
        }
        assert_eq!(id_bytes(&TaskId::new("anna").unwrap()), b"kanna", "it is on disk");
        for bad in [&b""[..], b"u123", b"k", b"k\xff", b"xyz"] {
            assert_eq!(read_id(bad), None);
        }
    }

    #[test]
    fn headers_are_read_as_they_were_written_and_cut_ones_are_not() {
        let mut headers = Headers::new();
        assert_eq!((headers_len(&headers), read_headers(Bytes::new())), (0, Some(Headers::new())));
        headers.insert("traceparent", "00-ab").unwrap();
        headers.insert("empty", "").unwrap();
        headers.insert("large", "x".repeat(16_000)).unwrap();
        headers.insert("n".repeat(128), "ü").unwrap();
        let mut stored = Vec::new();
        push_headers(&mut stored, &headers);
        assert_eq!(stored.len(), headers_len(&headers));
        assert_eq!(read_headers(stored.clone().into()).unwrap(), headers);
        // A cut between two headers leaves a shorter list.
        let mut ends = vec![0];
        for (name, value) in headers.iter() {
            ends.push(ends[ends.len() - 1] + 3 + name.len() + value.len());
        }
        for cut in 0..stored.len() {
            assert_eq!(read_headers(stored[..cut].to_vec().into()).is_some(), ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn a_reader_gives_no_more_than_there_is() {
        let mut from = Reader::new(vec![1, 2, b'a', 0xff]);
        assert_eq!((from.number(2), from.text(1).as_deref(), from.len()), (Some(0x102), Some("a"), 1));
        assert_eq!((from.take(2), from.text(1)), (None, None));
        assert!(from.is_empty(), "what is no text was taken");
        assert!(from.rest().is_empty());
    }
}
