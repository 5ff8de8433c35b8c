//! What is in the values. `scripts/common.lua` describes the layout of each.

use bytes::Bytes;
use delayline_core::{
    BuryCause, DeadLetter, Error, ErrorKind, GroupName, Headers, NewTask, Reason, Result, TaskId, Timestamp, limits,
};
use uuid::Uuid;

/// Headers and payload together up to this many bytes lie in their record; what is larger lies apart, so that changing and
/// settling never drags it through a script.
const INLINE_BYTES_MAX: usize = 1024;

const FORMAT: u8 = 0x40;
const ATTEMPTS: u8 = 1;
const EXPIRES: u8 = 2;
const APART: u8 = 4;
const GROUP: u8 = 8;
const HEADERS: u8 = 16;

const LEASED: u8 = 1;
const CANCELLED: u8 = 2;

/// A record as it is read.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) max_attempts: u32,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) group: Option<GroupName>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// A life as it is read.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) leased: bool,
    pub(crate) cancelled: bool,
    pub(crate) attempt: u32,
    pub(crate) old_place_ms: u64,
    pub(crate) failure: Option<String>,
}

/// A task's flags, what follows the seq in its record without expiry and number, as `schedule.lua` takes it, and what lies
/// apart.
pub(crate) fn written(task: &NewTask) -> (u8, Vec<u8>, Option<Vec<u8>>) {
    let header_bytes = if task.headers.is_empty() { 0 } else { 2 + 3 * task.headers.len() + task.headers.byte_len() };
    let apart = header_bytes + task.payload.len() > INLINE_BYTES_MAX;
    let group = task.group.as_ref().map(GroupName::as_str);
    let mut record =
        Vec::with_capacity(16 + group.map_or(0, str::len) + if apart { 0 } else { header_bytes + task.payload.len() });
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let attempts = task.max_attempts.get();
    let flags = FORMAT
        | flag(attempts != limits::ATTEMPTS_DEFAULT, ATTEMPTS)
        | flag(task.expires.is_some(), EXPIRES)
        | flag(apart, APART)
        | flag(group.is_some(), GROUP)
        | flag(header_bytes > 0, HEADERS);
    if attempts != limits::ATTEMPTS_DEFAULT {
        record.extend_from_slice(&(attempts as u16).to_be_bytes());
    }
    if apart {
        record.extend_from_slice(&(task.payload.len() as u32).to_be_bytes());
    }
    if let Some(group) = group {
        record.push(group.len() as u8);
        record.extend_from_slice(group.as_bytes());
    }
    if !apart {
        write_body(&mut record, task, header_bytes);
        return (flags, record, None);
    }
    let mut body = Vec::with_capacity(header_bytes + task.payload.len());
    write_body(&mut body, task, header_bytes);
    (flags, record, Some(body))
}

fn write_body(to: &mut Vec<u8>, task: &NewTask, header_bytes: usize) {
    if header_bytes > 0 {
        to.extend_from_slice(&((header_bytes - 2) as u16).to_be_bytes());
        for (name, value) in task.headers.iter() {
            to.push(name.len() as u8);
            to.extend_from_slice(name.as_bytes());
            to.extend_from_slice(&(value.len() as u16).to_be_bytes());
            to.extend_from_slice(value.as_bytes());
        }
    }
    to.extend_from_slice(&task.payload);
}

impl Record {
    /// Reads a record, and its body where that lies apart. The payload shares the bytes of what was read.
    pub(crate) fn read(record: Vec<u8>, body: Option<Vec<u8>>) -> Result<Self> {
        Self::read_from(Reader::new(record.into()), body)
    }

    fn read_from(mut from: Reader, body: Option<Vec<u8>>) -> Result<Self> {
        let flags = from.number(1)? as u8;
        if flags & !(ATTEMPTS | EXPIRES | APART | GROUP | HEADERS) != FORMAT {
            return Err(corrupt());
        }
        let seq = from.number(7)?;
        let max_attempts = if flags & ATTEMPTS == 0 { limits::ATTEMPTS_DEFAULT } else { from.number(2)? as u32 };
        let expires_at = if flags & EXPIRES == 0 { None } else { Some(millis(from.number(6)?)) };
        let apart = if flags & APART == 0 { None } else { Some(from.take(11)?) };
        let group = match flags & GROUP {
            0 => None,
            _ => {
                let length = from.number(1)? as usize;
                Some(GroupName::new(from.text(length)?).map_err(|_| corrupt())?)
            }
        };
        if apart.is_some() {
            from = Reader::new(body.ok_or_else(corrupt)?.into());
        }
        let mut headers = Headers::new();
        if flags & HEADERS != 0 {
            let length = from.number(2)? as usize;
            let mut packed = Reader::new(from.take(length)?);
            while !packed.0.is_empty() {
                let name = packed.number(1)? as usize;
                let name = packed.text(name)?;
                let value = packed.number(2)? as usize;
                headers.insert(name, packed.text(value)?).map_err(|_| corrupt())?;
            }
        }
        Ok(Self { seq, max_attempts, expires_at, group, headers, payload: from.0 })
    }
}

impl Life {
    pub(crate) fn read(life: Vec<u8>) -> Result<Self> {
        let mut from = Reader::new(life.into());
        let flags = from.number(1)? as u8;
        from.take(14)?;
        let attempt = from.number(2)? as u32;
        from.take(2)?;
        let old_place_ms = from.number(6)?;
        if flags & APART != 0 {
            from.take(11)?;
        }
        if flags & GROUP != 0 {
            let length = from.number(1)? as usize;
            from.take(length)?;
        }
        let rest = from.0.len();
        let failure = if rest == 0 { None } else { Some(from.text(rest)?) };
        Ok(Self { leased: flags & LEASED != 0, cancelled: flags & CANCELLED != 0, attempt, old_place_ms, failure })
    }
}

/// A dead letter and its number.
pub(crate) fn read_letter(letter: Vec<u8>, body: Option<Vec<u8>>) -> Result<(u64, DeadLetter)> {
    let mut from = Reader::new(letter.into());
    let number = from.number(7)?;
    let cause = match from.number(1)? {
        1 => BuryCause::AttemptsUsedUp,
        2 => BuryCause::Expired,
        3 => BuryCause::Buried,
        _ => return Err(corrupt()),
    };
    let attempts = from.number(2)? as u32;
    let (buried_at, due_at) = (millis(from.number(6)?), millis(from.number(6)?));
    let length = from.number(2)? as usize;
    let id = read_id(&from.take(length)?)?;
    let length = from.number(2)? as usize;
    let reason = Reason::new(from.text(length)?);
    let record = Record::read_from(from, body)?;
    let mut letter = DeadLetter::new(id, cause, reason, buried_at, record.payload);
    letter.due_at = due_at;
    letter.attempts = attempts;
    letter.headers = record.headers;
    letter.group = record.group;
    Ok((number, letter))
}

/// An id as it is stored.
pub(crate) fn id_bytes(id: &TaskId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(17);
    push_id(&mut stored, id);
    stored
}

/// Adds an id as it is stored.
pub(crate) fn push_id(to: &mut Vec<u8>, id: &TaskId) {
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

/// Seven bytes, as numbers of a queue are stored.
pub(crate) fn number_bytes(number: u64) -> [u8; 7] {
    let [_, seven @ ..] = number.to_be_bytes();
    seven
}

pub(crate) fn millis(ms: u64) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

pub(crate) fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "an entry in Redis is not what this library wrote")
}

/// What is left to read.
struct Reader(Bytes);

impl Reader {
    fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    fn take(&mut self, n: usize) -> Result<Bytes> {
        if self.0.len() < n {
            return Err(corrupt());
        }
        Ok(self.0.split_to(n))
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    fn text(&mut self, n: usize) -> Result<String> {
        String::from_utf8(self.take(n)?.to_vec()).map_err(|_| corrupt())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::{Attempts, Due};

    use super::*;

    /// What `schedule.lua` makes of a record.
    fn stored(task: &NewTask, seq: u64, expires_ms: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        let (flags, written, body) = written(task);
        let from = if flags & ATTEMPTS == 0 { 0 } else { 2 };
        let mut record = vec![flags];
        record.extend(number_bytes(seq));
        record.extend(&written[..from]);
        if flags & EXPIRES != 0 {
            record.extend(&expires_ms.to_be_bytes()[2..]);
        }
        if flags & APART != 0 {
            record.extend(number_bytes(seq));
        }
        record.extend(&written[from..]);
        (record, body)
    }

    #[test]
    fn what_is_written_is_read_again_with_and_without_each_part() {
        for parts in 0..32 {
            let has = |part: u8| parts & part != 0;
            let size = if has(APART) { 5_000 } else { 100 };
            let mut task = NewTask::new(Due::NOW, vec![7; size]);
            if has(ATTEMPTS) {
                task = task.max_attempts(Attempts::new(10_000).unwrap());
            }
            if has(EXPIRES) {
                task = task.expires(Duration::from_secs(1));
            }
            if has(GROUP) {
                task = task.group(GroupName::new("ü".repeat(64)).unwrap());
            }
            if has(HEADERS) {
                let mut headers = Headers::new();
                headers.insert("traceparent", "00-ab").unwrap();
                headers.insert("empty", "").unwrap();
                task = task.headers(headers);
            }
            let (record, body) = stored(&task, (1 << 50) + 7, 1_900_000_000_123);
            assert_eq!(record[0] & 31, parts, "each part is flagged");
            let read = Record::read(record.clone(), body.clone()).unwrap();
            assert_eq!(read.seq, (1 << 50) + 7);
            assert_eq!(read.max_attempts, task.max_attempts.get());
            assert_eq!(read.expires_at, has(EXPIRES).then(|| millis(1_900_000_000_123)));
            assert_eq!((read.group, read.headers, read.payload), (task.group, task.headers, task.payload));
            if !has(APART) {
                for cut in 0..record.len() - 100 {
                    assert!(Record::read(record[..cut].to_vec(), None).is_err(), "{parts} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_plain_task_has_eight_bytes_beside_its_payload() {
        let (record, body) = stored(&NewTask::new(Due::NOW, vec![0; 100]), 1, 0);
        assert_eq!((record.len(), body), (108, None));
    }

    #[test]
    fn ids_are_read_as_they_were_written() {
        for id in [TaskId::from_uuid(Uuid::from_u128(7)), TaskId::new("ü".repeat(128)).unwrap()] {
            assert_eq!(read_id(&id_bytes(&id)).unwrap(), id);
        }
        for bad in [&b""[..], b"u123", b"k", b"k\xff", b"xyz"] {
            assert_eq!(read_id(bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
