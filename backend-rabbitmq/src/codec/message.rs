//! Encodes a task as a message, in its properties and headers, and decodes it.
//!
//! The headers hold everything about a task. So a message is written anew whenever it is published, without the headers
//! that brokers add (`x-death`).
//!
//! | header | contents |
//! |---|---|
//! | `delayline` | the format, 1 |
//! | `id` | the task's id |
//! | `due` | when it is visible, in milliseconds since 1970 |
//! | `seq` | its sequence: microseconds since 1970 at acceptance, one more for each task of a batch; for a dead letter, at dead-lettering |
//! | `attempts` | attempts that have ended; failed deliveries that the broker counted are added |
//! | `max` | attempts it may have |
//! | `fence` | the last known fence |
//! | `expires` | the last millisecond at which it may be delivered |
//! | `failure` | why the last attempt failed |
//! | `h` | the task's own headers |
//! | `cause` `buried` | of a dead letter: cause and time of its dead-lettering; the reason is in `failure` |
//! | `target` `to` `by` | of a tombstone: the number of its task, the task's new due time, or the shift |
//! | `CC` | in the levels: the steps of its way ([`crate::way`]) |
//!
//! The property `message_id` is the task's number: 32 hexadecimal digits, unique, the same in all its messages.

use bytes::Bytes;
use delayline_core::{Attempts, DeadLetter, Headers, NewTask, Reason, TaskId, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::kind::{Foreign, Kind, TombstoneAction, from_hex, to_hex};
use super::table::{bits, long, number, string, text};

/// The format of the headers.
const FORMAT: i64 = 1;

/// The header by which a broker routes as by the routing key. `BCC` is the same, but the broker removes it.
pub(crate) const CC: &str = "CC";
const BCC: &str = "BCC";

/// A message of this backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// The task's unique number. A tombstone has its own number.
    pub(crate) number: u128,
    pub(crate) id: TaskId,
    /// When it is visible, in milliseconds since 1970.
    pub(crate) due_ms: i64,
    /// The order of tasks that are visible at the same millisecond.
    pub(crate) seq: u64,
    /// Attempts that have ended.
    pub(crate) attempts: u32,
    pub(crate) attempts_max: u32,
    pub(crate) fence: u64,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) failure: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) kind: Kind,
}

impl Message {
    /// The message of a new task.
    pub(crate) fn new(task: NewTask, id: TaskId, number: u128, due_ms: i64, seq: u64, expires_ms: Option<i64>) -> Self {
        Self {
            number,
            id,
            due_ms,
            seq,
            attempts: 0,
            attempts_max: task.attempts_max.get(),
            fence: 0,
            expires_ms,
            failure: None,
            headers: task.headers,
            payload: task.payload,
            kind: Kind::Task,
        }
    }

    /// A marker: a message without a meaning of its own, encoded as a tombstone of itself.
    pub(crate) fn marker(number: u128, id: TaskId) -> Self {
        Self {
            number,
            id,
            due_ms: 0,
            seq: 0,
            attempts: 0,
            attempts_max: 1,
            fence: 0,
            expires_ms: None,
            failure: None,
            headers: Headers::default(),
            payload: Bytes::new(),
            kind: Kind::Tombstone { target: number, action: TombstoneAction::Cancel },
        }
    }

    /// Whether this is a marker.
    pub(crate) fn is_marker(&self) -> bool {
        matches!(self.kind, Kind::Tombstone { target, .. } if target == self.number)
    }

    /// The properties to publish it with: persistent, with this backend's headers only.
    pub(crate) fn properties(&self) -> BasicProperties {
        self.properties_on(&[])
    }

    /// Like [`properties`](Self::properties), with further routing keys.
    pub(crate) fn properties_on(&self, keys: &[String]) -> BasicProperties {
        let mut table = FieldTable::default();
        let mut put = |name: &str, value: AMQPValue| {
            table.insert(name.into(), value);
        };
        put("delayline", long(FORMAT));
        put("id", text(&self.id.to_text()));
        put("due", long(self.due_ms));
        put("seq", bits(self.seq));
        put("attempts", long(self.attempts.into()));
        put("max", long(self.attempts_max.into()));
        put("fence", bits(self.fence));
        if let Some(expires) = self.expires_ms {
            put("expires", long(expires));
        }
        if let Some(failure) = &self.failure {
            put("failure", text(failure));
        }
        self.kind.put(&mut put);
        if !self.headers.is_empty() {
            let mut own = FieldTable::default();
            self.headers.iter().for_each(|(name, value)| {
                own.insert(name.into(), text(value));
            });
            put("h", AMQPValue::FieldTable(own));
        }
        if !keys.is_empty() {
            put(CC, AMQPValue::FieldArray(keys.iter().map(|key| text(key)).collect::<Vec<_>>().into()));
        }
        BasicProperties::default().with_delivery_mode(2).with_message_id(to_hex(self.number).into()).with_headers(table)
    }

    /// Decodes a message.
    pub(crate) fn read(properties: &BasicProperties, payload: Bytes) -> Result<Self, Foreign> {
        let table = properties.headers().as_ref().ok_or(Foreign("it has no headers"))?;
        match number(table, "delayline") {
            Some(FORMAT) => {}
            Some(_) => return Err(Foreign("its format is not supported by this version")),
            None => return Err(Foreign("it has no header `delayline`")),
        }
        let own_number = properties.message_id().as_ref().and_then(|n| from_hex(n.as_str()));
        let small = |name: &str| number(table, name).and_then(|n| u32::try_from(n).ok());
        let kind = Kind::read(table)?;
        Ok(Self {
            number: own_number.ok_or(Foreign("its message id is not a task number"))?,
            id: string(table, "id")
                .and_then(|id| TaskId::new(id).ok())
                .ok_or(Foreign("its `id` is missing or invalid"))?,
            due_ms: number(table, "due").ok_or(Foreign("it has no `due`"))?,
            seq: number(table, "seq").ok_or(Foreign("it has no `seq`"))?.cast_unsigned(),
            attempts: small("attempts").ok_or(Foreign("its `attempts` are none"))?,
            attempts_max: small("max")
                .and_then(|n| Attempts::new(n).ok())
                .ok_or(Foreign("its `max` is out of range"))?
                .get(),
            fence: number(table, "fence").ok_or(Foreign("it has no `fence`"))?.cast_unsigned(),
            expires_ms: number(table, "expires"),
            failure: string(table, "failure"),
            headers: own_headers(table)?,
            payload,
            kind,
        })
    }

    /// The dead letter as the trait returns it.
    pub(crate) fn into_letter(self) -> Option<DeadLetter> {
        let Kind::Dead { cause, dead_lettered_ms } = self.kind else { return None };
        let reason = Reason::new(self.failure.unwrap_or_default());
        let dead_lettered_at = Timestamp::from_unix_millis(dead_lettered_ms);
        let mut letter = DeadLetter::new(self.id, cause, reason, dead_lettered_at, self.payload);
        letter.due_at = Timestamp::from_unix_millis(self.due_ms);
        letter.attempts = self.attempts;
        letter.headers = self.headers;
        Some(letter)
    }

    /// Approximate size in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.payload.len() + self.headers.byte_len() + self.failure.as_ref().map_or(0, String::len) + 256
    }
}

/// The properties with which a foreign message is quarantined: without those by which a broker would route it
/// elsewhere, too.
pub(crate) fn kept(properties: &BasicProperties) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in properties.headers().iter().flatten().filter(|(name, _)| ![CC, BCC].contains(&name.as_str())) {
        table.insert(name.clone(), value.clone());
    }
    properties.clone().with_headers(table).with_delivery_mode(2)
}

/// Number of failed deliveries of this message from its queue, as the broker reports it.
pub(crate) fn delivery_count(properties: &BasicProperties) -> u32 {
    let count = properties.headers().as_ref().and_then(|table| number(table, "x-delivery-count"));
    count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

/// Why the last queue dead-lettered this message, as the broker reports it.
pub(crate) fn death_reason(properties: &BasicProperties) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
    string(latest, "reason")
}

fn own_headers(table: &FieldTable) -> Result<Headers, Foreign> {
    let mut headers = Headers::new();
    let Some(value) = table.inner().get("h") else { return Ok(headers) };
    let AMQPValue::FieldTable(own) = value else { return Err(Foreign("its `h` is not a table")) };
    for (name, value) in own {
        let AMQPValue::LongString(value) = value else { return Err(Foreign("a header of the task is not text")) };
        let value =
            String::from_utf8(value.as_bytes().to_vec()).map_err(|_| Foreign("a header of the task is not UTF-8"))?;
        headers.insert(name.as_str(), value).map_err(|_| Foreign("a header of the task is over a limit"))?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::DeadLetterCause;

    use super::*;

    fn message(kind: Kind) -> Message {
        let mut headers = Headers::new();
        headers.insert("trace", "00-ä").unwrap();
        let task = NewTask::new(Duration::from_secs(1), "payload").headers(headers);
        let mut message = Message::new(task, TaskId::new("exam-7/ä").unwrap(), 7, -5, u64::MAX, Some(9));
        message.attempts = 3;
        message.fence = 1 << 60;
        message.failure = Some("it broke".into());
        message.kind = kind;
        message
    }

    #[test]
    fn what_is_written_is_read() {
        for kind in [
            Kind::Task,
            Kind::Dead { cause: DeadLetterCause::Expired, dead_lettered_ms: 8 },
            Kind::Tombstone { target: u128::MAX, action: TombstoneAction::Cancel },
            Kind::Tombstone { target: 1, action: TombstoneAction::MoveTo(6) },
            Kind::Tombstone { target: 1, action: TombstoneAction::Shift(-6) },
        ] {
            let message = message(kind);
            assert_eq!(Message::read(&message.properties(), message.payload.clone()), Ok(message));
        }
    }

    #[test]
    fn what_is_not_ours_is_told_from_what_is() {
        let none = BasicProperties::default();
        assert_eq!(Message::read(&none, Bytes::new()), Err(Foreign("it has no headers")));
        let other = none.clone().with_headers(FieldTable::default());
        assert_eq!(Message::read(&other, Bytes::new()), Err(Foreign("it has no header `delayline`")));
        let whole = message(Kind::Task).properties();
        for name in ["id", "due", "seq", "attempts", "max", "fence", "delayline"] {
            let mut table = FieldTable::default();
            for (key, value) in whole.headers().clone().unwrap().into_iter().filter(|(key, _)| key.as_str() != name) {
                table.insert(key.clone(), value.clone());
            }
            assert!(Message::read(&whole.clone().with_headers(table), Bytes::new()).is_err(), "without `{name}`");
        }
        let without_number = whole.with_message_id("7".into());
        assert!(Message::read(&without_number, Bytes::new()).is_err());
    }
}
