//! Encodes and decodes the values. `../scripts/common.lua` describes the layout of each.

use bytes::Bytes;
use delayline_backend_kit::codec::{self, Reader};
use delayline_backend_kit::times::millis;
use delayline_core::{
    DeadLetter, Error, ErrorKind, GroupName, Headers, NewTask, Reason, Result, TaskId, Timestamp, limits,
};

/// Headers and payload of up to this many bytes together are stored in the task's record. Larger ones are stored in a
/// key apart, so that a change or a settlement does not load them into a script.
const INLINE_BYTES_MAX: usize = 1024;

const FORMAT: u8 = 0x40;
const ATTEMPTS: u8 = 1;
const EXPIRES: u8 = 2;
const APART: u8 = 4;
const GROUP: u8 = 8;
const HEADERS: u8 = 16;

const LEASED: u8 = 1;
const CANCELLED: u8 = 2;

/// A decoded record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) attempts_max: u32,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) group: Option<GroupName>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// A decoded life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) leased: bool,
    pub(crate) cancelled: bool,
    pub(crate) attempt: u32,
    pub(crate) old_place_ms: u64,
    pub(crate) failure: Option<String>,
}

/// Encodes a task for `schedule.lua`: its flags, the part of its record that follows the seq (without expiry and
/// number), and the body that is stored apart, if any.
pub(crate) fn written(task: &NewTask) -> (u8, Vec<u8>, Option<Vec<u8>>) {
    let header_bytes = if task.headers.is_empty() { 0 } else { 2 + codec::headers_len(&task.headers) };
    let apart = header_bytes + task.payload.len() > INLINE_BYTES_MAX;
    let group = task.group.as_ref().map(GroupName::as_str);
    let mut record =
        Vec::with_capacity(16 + group.map_or(0, str::len) + if apart { 0 } else { header_bytes + task.payload.len() });
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let attempts = task.attempts_max.get();
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
        codec::push_headers(to, &task.headers);
    }
    to.extend_from_slice(&task.payload);
}

impl Record {
    /// Decodes a record, and its body if that is stored apart. The payload shares the bytes of the input.
    pub(crate) fn read(record: Vec<u8>, body: Option<Vec<u8>>) -> Result<Self> {
        Self::read_from(Reader::new(record), body).ok_or_else(corrupt)
    }

    fn read_from(mut from: Reader, body: Option<Vec<u8>>) -> Option<Self> {
        let flags = from.number(1)? as u8;
        if flags & !(ATTEMPTS | EXPIRES | APART | GROUP | HEADERS) != FORMAT {
            return None;
        }
        let seq = from.number(7)?;
        let attempts_max = if flags & ATTEMPTS == 0 { limits::ATTEMPTS_DEFAULT } else { from.number(2)? as u32 };
        let expires_at = if flags & EXPIRES == 0 { None } else { Some(millis(from.number(6)?)) };
        let apart = if flags & APART == 0 { None } else { Some(from.take(11)?) };
        let group = match flags & GROUP {
            0 => None,
            _ => {
                let length = from.number(1)? as usize;
                Some(GroupName::new(from.text(length)?).ok()?)
            }
        };
        if apart.is_some() {
            from = Reader::new(body?);
        }
        let mut headers = Headers::new();
        if flags & HEADERS != 0 {
            let length = from.number(2)? as usize;
            headers = codec::read_headers(from.take(length)?)?;
        }
        Some(Self { seq, attempts_max, expires_at, group, headers, payload: from.rest() })
    }
}

impl Life {
    pub(crate) fn read(life: Vec<u8>) -> Result<Self> {
        Self::read_from(Reader::new(life)).ok_or_else(corrupt)
    }

    fn read_from(mut from: Reader) -> Option<Self> {
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
        let rest = from.len();
        let failure = if rest == 0 { None } else { Some(from.text(rest)?) };
        Some(Self { leased: flags & LEASED != 0, cancelled: flags & CANCELLED != 0, attempt, old_place_ms, failure })
    }
}

/// Decodes a dead letter and its number.
pub(crate) fn read_letter(letter: Vec<u8>, body: Option<Vec<u8>>) -> Result<(u64, DeadLetter)> {
    letter_from(Reader::new(letter), body).ok_or_else(corrupt)
}

fn letter_from(mut from: Reader, body: Option<Vec<u8>>) -> Option<(u64, DeadLetter)> {
    let number = from.number(7)?;
    let cause = codec::read_cause(from.number(1)?)?;
    let attempts = from.number(2)? as u32;
    let (dead_lettered_at, due_at) = (millis(from.number(6)?), millis(from.number(6)?));
    let length = from.number(2)? as usize;
    let id = codec::read_id(&from.take(length)?)?;
    let length = from.number(2)? as usize;
    let reason = Reason::new(from.text(length)?);
    let record = Record::read_from(from, body)?;
    let mut letter = DeadLetter::new(id, cause, reason, dead_lettered_at, record.payload);
    letter.due_at = due_at;
    letter.attempts = attempts;
    letter.headers = record.headers;
    letter.group = record.group;
    Some((number, letter))
}

/// Decodes a stored id.
pub(crate) fn read_id(stored: &[u8]) -> Result<TaskId> {
    codec::read_id(stored).ok_or_else(corrupt)
}

/// A number of a queue in its stored form: seven bytes.
pub(crate) fn number_bytes(number: u64) -> [u8; 7] {
    let [_, seven @ ..] = number.to_be_bytes();
    seven
}

pub(crate) fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "an entry in Redis is not in the format of this library")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::{Attempts, Due};

    use super::*;

    /// The record that `schedule.lua` stores.
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
                task = task.attempts_max(Attempts::new(10_000).unwrap());
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
            assert_eq!(read.attempts_max, task.attempts_max.get());
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
}
