//! A task to schedule, the answer to it, and the store's view of a task.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;
use crate::limits::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX};
use crate::names::shown;
use crate::{Due, Error, ErrorKind, GroupName, Result, TaskId, Timestamp};

/// An encoded task to schedule, as [`DelayBackend::schedule`](crate::DelayBackend::schedule) receives it.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewTask {
    /// Task id chosen by the caller. Default: `None`, the backend generates a UUIDv7. On a backend with unique ids, set one
    /// if the call may have to be repeated after [`Ambiguous`](ErrorKind::Ambiguous).
    pub id: Option<TaskId>,
    /// Due time.
    pub due: Due,
    /// Last moment at which the task may be delivered; after it, the task is dead-lettered. Must not be before `due`.
    /// Default: none.
    pub expires: Option<Due>,
    /// Payload, which the handler receives. Limit: [`Capabilities::payload_bytes_max`](crate::Capabilities) bytes.
    pub payload: Bytes,
    /// Small named values besides the payload.
    pub headers: Headers,
    /// Group, through which the task can be changed together with others. Default: none.
    pub group: Option<GroupName>,
    /// Maximum number of attempts, after which the task is dead-lettered. Default: 20.
    pub attempts_max: Attempts,
    /// What happens if a task with the same id is pending or in flight. Default: [`OnConflict::Keep`].
    pub on_conflict: OnConflict,
}

impl fmt::Debug for NewTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, due, expires, payload, headers, group, attempts_max, on_conflict } = self;
        f.debug_struct("NewTask")
            .field("id", id)
            .field("due", due)
            .field("expires", expires)
            .field("payload", &Hidden(payload.len()))
            .field("headers", headers)
            .field("group", group)
            .field("attempts_max", attempts_max)
            .field("on_conflict", on_conflict)
            .finish()
    }
}

impl NewTask {
    /// Creates a task with this due time and payload, and defaults for the rest.
    pub fn new(due: impl Into<Due>, payload: impl Into<Bytes>) -> Self {
        Self {
            id: None,
            due: due.into(),
            expires: None,
            payload: payload.into(),
            headers: Headers::default(),
            group: None,
            attempts_max: Attempts::default(),
            on_conflict: OnConflict::default(),
        }
    }

    /// Sets the task id.
    #[must_use]
    pub fn id(mut self, id: TaskId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the group.
    #[must_use]
    pub fn group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the last moment at which the task may be delivered; after it, the task is dead-lettered.
    #[must_use]
    pub fn expires(mut self, expires: impl Into<Due>) -> Self {
        self.expires = Some(expires.into());
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the maximum number of attempts, after which the task is dead-lettered.
    #[must_use]
    pub fn attempts_max(mut self, attempts: Attempts) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// Replaces an existing task with the same id: [`OnConflict::Replace`].
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.on_conflict = OnConflict::Replace;
        self
    }
}

/// What `schedule` does if a task with the same id is already in the queue, pending or in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// Leaves the existing task as it is. The outcome is [`ScheduleOutcome::Existing`].
    #[default]
    Keep,
    /// Replaces the existing task; everything is taken from the new one, such as due time, payload, sequence and
    /// attempts (debounce). If the existing task is in flight, its lease is lost.
    Replace,
}

/// Maximum number of attempts of a task. Default: 20. Range: 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempts(u32);

impl Attempts {
    /// Checks and converts a number.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) for 0 and for more than 10,000.
    pub fn new(attempts: u32) -> Result<Self> {
        if (1..=ATTEMPTS_MAX).contains(&attempts) {
            return Ok(Self(attempts));
        }
        Err(Error::new(ErrorKind::OutOfRange, format!("expected 1 to {ATTEMPTS_MAX} attempts, got {attempts}")))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self(ATTEMPTS_DEFAULT)
    }
}

/// Small named values besides the payload, such as a trace context, ordered by name.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Headers(BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, Hidden(value.len())))).finish()
    }
}

impl Headers {
    /// Creates an empty set of headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header. A header that already has this name gets the new value.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a name that is empty or not printable ASCII without spaces;
    /// [`TooLarge`](ErrorKind::TooLarge) for more than 64 headers, a name over 128 bytes, or more than 16 KiB in all.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<()> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("header name `{}` must be printable ASCII without spaces, and not empty", shown(&name)),
            ));
        }
        if name.len() > HEADER_NAME_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("header name `{}` is longer than {HEADER_NAME_BYTES_MAX} bytes", shown(&name)),
            ));
        }
        let replaced = self.0.get(&name).map_or(0, |old| name.len() + old.len());
        if self.byte_len() - replaced + name.len() + value.len() > HEADERS_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("headers exceed {HEADERS_BYTES_MAX} bytes in all")));
        }
        if replaced == 0 && self.0.len() == HEADERS_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("more than {HEADERS_MAX} headers")));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All headers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Total size of all names and values, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut headers = Self::new();
        for (name, value) in BTreeMap::<String, String>::deserialize(d)? {
            headers.insert(name, value).map_err(serde::de::Error::custom)?;
        }
        Ok(headers)
    }
}

impl IntoIterator for Headers {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The store's own record of where a task or lease is, opaque to everybody else. Its text form is hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Receipt(ReceiptRepr);

#[derive(Clone, PartialEq, Eq, Hash, Default)]
enum ReceiptRepr {
    #[default]
    None,
    /// Two numbers cost no allocation.
    Words([u64; 2]),
    Bytes(Box<[u8]>),
}

impl Receipt {
    /// The empty receipt, for stores that find a task by its id alone.
    pub const NONE: Self = Self(ReceiptRepr::None);

    /// Creates a receipt from two numbers, without an allocation.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(ReceiptRepr::Words(words))
    }

    /// Creates a receipt from any bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match <[u8; 16]>::try_from(bytes) {
            // Each content has one form, so that a receipt that is read back from text equals the one that was written.
            Ok(b) => Self::from_words(words_of(b)),
            Err(_) if bytes.is_empty() => Self::NONE,
            Err(_) => Self(ReceiptRepr::Bytes(bytes.into())),
        }
    }

    /// The two numbers, if the receipt consists of two numbers.
    #[must_use]
    pub fn words(&self) -> Option<[u64; 2]> {
        match self.0 {
            ReceiptRepr::Words(words) => Some(words),
            ReceiptRepr::None | ReceiptRepr::Bytes(_) => None,
        }
    }

    /// The bytes; empty for [`Receipt::NONE`].
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        match &self.0 {
            ReceiptRepr::None => Vec::new(),
            ReceiptRepr::Words([a, b]) => [a.to_be_bytes(), b.to_be_bytes()].concat(),
            ReceiptRepr::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

fn words_of(b: [u8; 16]) -> [u64; 2] {
    let all = u128::from_be_bytes(b);
    [(all >> 64) as u64, all as u64]
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_vec().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        fmt::Display::fmt(self, f)?;
        f.write_char('"')
    }
}

impl FromStr for Receipt {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let malformed =
            || Error::new(ErrorKind::Invalid, format!("expected a receipt in hexadecimal, got `{}`", shown(s)));
        if !s.len().is_multiple_of(2) || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let byte = |i| u8::from_str_radix(&s[i..i + 2], 16).map_err(|_| malformed());
        Ok(Self::from_bytes(&(0..s.len()).step_by(2).map(byte).collect::<Result<Vec<_>>>()?))
    }
}

impl Serialize for Receipt {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Receipt {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A reference to a scheduled task, which [`Select::Tasks`](crate::Select) takes. It can be stored as text and used
/// later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskRef {
    /// Task id.
    pub id: TaskId,
    /// Due time of the task when this reference was made; `None` if it was not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The store's own record of the task. Some backends need it to cancel or move the task: see
    /// [`Capabilities::change_needs_receipt`](crate::Capabilities).
    #[serde(default)]
    pub receipt: Receipt,
}

impl TaskRef {
    /// For backend authors: creates a complete reference.
    #[must_use]
    pub fn new(id: TaskId, due_at: Timestamp, receipt: Receipt) -> Self {
        Self { id, due_at: Some(due_at), receipt }
    }
}

impl From<TaskId> for TaskRef {
    /// References a task by its id alone, which is enough where no receipt is needed.
    fn from(id: TaskId) -> Self {
        Self { id, due_at: None, receipt: Receipt::NONE }
    }
}

impl From<&TaskId> for TaskRef {
    fn from(id: &TaskId) -> Self {
        id.clone().into()
    }
}

impl From<Scheduled> for TaskRef {
    fn from(scheduled: Scheduled) -> Self {
        scheduled.task
    }
}

impl From<&Scheduled> for TaskRef {
    fn from(scheduled: &Scheduled) -> Self {
        scheduled.task.clone()
    }
}

/// The answer for a task that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scheduled {
    /// The scheduled task; for [`ScheduleOutcome::Existing`], the task that already existed.
    pub task: TaskRef,
    /// What `schedule` did.
    pub outcome: ScheduleOutcome,
}

impl Scheduled {
    /// For backend authors: creates an answer.
    #[must_use]
    pub fn new(task: TaskRef, outcome: ScheduleOutcome) -> Self {
        Self { task, outcome }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.task.id
    }
}

/// What `schedule` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleOutcome {
    /// The task was created.
    Created,
    /// A task with this id was pending or in flight, and was left unchanged.
    Existing,
    /// A task with this id was pending or in flight, and the new task replaced it.
    Replaced,
}

impl ScheduleOutcome {
    /// The outcome as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Existing => "existing",
            Self::Replaced => "replaced",
        }
    }
}

/// A read-only snapshot of a task that is pending or in flight.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskView {
    /// Reference to the task.
    pub task: TaskRef,
    /// Whether the task waits or is in flight.
    pub state: TaskState,
    /// When the task can next be delivered: its due time, its retry time, or the end of its current lease.
    pub visible_at: Timestamp,
    /// Number of attempts so far, including a running one.
    pub attempt: u32,
    /// Maximum number of attempts.
    pub attempts_max: u32,
    /// Last moment at which the task may be delivered.
    pub expires_at: Option<Timestamp>,
    /// Group of the task.
    pub group: Option<GroupName>,
    /// Headers of the task.
    pub headers: Headers,
    /// Payload of the task.
    pub payload: Bytes,
    /// Why the last attempt failed, if one did.
    pub last_failure: Option<String>,
}

impl fmt::Debug for TaskView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, state, visible_at, attempt, attempts_max, expires_at, group, headers, payload, last_failure } =
            self;
        f.debug_struct("TaskView")
            .field("task", task)
            .field("state", state)
            .field("visible_at", visible_at)
            .field("attempt", attempt)
            .field("attempts_max", attempts_max)
            .field("expires_at", expires_at)
            .field("group", group)
            .field("headers", headers)
            .field("payload", &Hidden(payload.len()))
            .field("last_failure", last_failure)
            .finish()
    }
}

impl TaskView {
    /// For backend authors: creates a view with the fields that every view has. The others are set on the value.
    #[must_use]
    pub fn new(task: TaskRef, state: TaskState, visible_at: Timestamp, payload: Bytes) -> Self {
        Self {
            task,
            state,
            visible_at,
            attempt: 0,
            attempts_max: ATTEMPTS_DEFAULT,
            expires_at: None,
            group: None,
            headers: Headers::default(),
            payload,
            last_failure: None,
        }
    }
}

/// The state of a task that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// The task waits for its due or retry time, or is due and waits for a claim.
    Pending,
    /// The task is under a lease that has not ended.
    InFlight,
    /// The task is under a lease and was cancelled: it is not delivered again.
    Cancelling,
}

impl TaskState {
    /// The state as one lower-case word, such as `in_flight`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InFlight => "in_flight",
            Self::Cancelling => "cancelling",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_ref_survives_a_trip_through_text() {
        for receipt in [Receipt::NONE, Receipt::from_words([7, u64::MAX]), Receipt::from_bytes(b"level-3")] {
            let task =
                TaskRef::new(TaskId::new("exam-7").unwrap(), Timestamp::from_unix_millis(1_800_000_000_123), receipt);
            let text = serde_json::to_string(&task).unwrap();
            assert_eq!(serde_json::from_str::<TaskRef>(&text).unwrap(), task, "{text}");
        }
        assert!("abc".parse::<Receipt>().is_err());
        assert!("zz".parse::<Receipt>().is_err());
        assert!("é".parse::<Receipt>().is_err());
    }

    #[test]
    fn bound_2_headers_have_limits() {
        let mut headers = Headers::new();
        headers.insert("traceparent", "00-ab").unwrap();
        headers.insert("traceparent", "00-cd").unwrap();
        assert_eq!((headers.len(), headers.get("traceparent")), (1, Some("00-cd")));
        assert_eq!(headers.insert("a b", "").unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(headers.insert("big", "x".repeat(16 * 1024)).unwrap_err().kind(), ErrorKind::TooLarge);
        for i in 1..64 {
            headers.insert(format!("h{i}"), "").unwrap();
        }
        assert_eq!(headers.insert("one-more", "").unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(headers.insert("h1", "replacing is fine").is_ok());
    }
}
