//! Names and ids. A value of these types is always valid.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{GROUP_NAME_BYTES_MAX, QUEUE_NAME_BYTES_MAX, TASK_ID_BYTES_MAX};
use crate::{Error, ErrorKind, Result};

/// Queue name: 1 to 128 characters of `A-Z a-z 0-9 . _ -`, so that any store can use it in a key, queue or table name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

/// Group name: 1 to 128 bytes of UTF-8 without control characters. The tasks of a group are changed together, such as
/// all tasks of one exam.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

/// Task id, unique within its queue. Either a UUID that the backend generated (version 7), or a key chosen by the
/// caller: 1 to 256 bytes of UTF-8 without control characters.
///
/// A key with the spelling of a UUID (36 characters, lower case) is the same id as that UUID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(IdRepr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum IdRepr {
    Uuid(Uuid),
    Key(Arc<str>),
}

/// Operation id, which identifies one change of tasks. Repeating the change with it after a lost answer changes no task
/// twice: see [`Change`](crate::Change).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperationId(Uuid);

impl QueueName {
    /// Checks and converts a name.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name or a character outside the set.
    /// [`TooLarge`](ErrorKind::TooLarge) for a name over the limit.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check_length("queue name", name, QUEUE_NAME_BYTES_MAX)?;
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            None => Ok(Self(name.into())),
            Some(c) => Err(Error::new(
                ErrorKind::Invalid,
                format!("queue name `{}` contains {c:?}; allowed are A-Z a-z 0-9 . _ -", shown(name)),
            )),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GroupName {
    /// Checks and converts a name.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name or one with a control character.
    /// [`TooLarge`](ErrorKind::TooLarge) for a name over the limit.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check_text("group name", name, GROUP_NAME_BYTES_MAX)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TaskId {
    /// Checks and converts a key chosen by the caller.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty key or one with a control character.
    /// [`TooLarge`](ErrorKind::TooLarge) for a key over the limit.
    pub fn new(key: impl AsRef<str>) -> Result<Self> {
        let key = key.as_ref();
        check_text("task id", key, TASK_ID_BYTES_MAX)?;
        Ok(match canonical_uuid(key) {
            Some(uuid) => Self(IdRepr::Uuid(uuid)),
            None => Self(IdRepr::Key(key.into())),
        })
    }

    /// Creates an id from a UUID.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(IdRepr::Uuid(uuid))
    }

    /// The UUID, if this id is one.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        match &self.0 {
            IdRepr::Uuid(uuid) => Some(*uuid),
            IdRepr::Key(_) => None,
        }
    }

    /// The caller's key, if this id is not a UUID.
    #[must_use]
    pub fn as_key(&self) -> Option<&str> {
        match &self.0 {
            IdRepr::Uuid(_) => None,
            IdRepr::Key(key) => Some(key),
        }
    }

    /// The id as text. Allocates only for a UUID.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        match &self.0 {
            IdRepr::Uuid(uuid) => Cow::Owned(uuid.to_string()),
            IdRepr::Key(key) => Cow::Borrowed(key),
        }
    }
}

impl From<Uuid> for TaskId {
    fn from(uuid: Uuid) -> Self {
        Self::from_uuid(uuid)
    }
}

impl OperationId {
    /// Creates a random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Creates an id from a UUID that the caller keeps, to repeat the change after a crash.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The operation id of one call of a change that is too large for one call. Calls are counted from 0; the first one
    /// has the id of the change.
    #[must_use]
    pub(crate) fn of_piece(self, number: usize) -> Self {
        // 2^128 divided by the golden ratio, so that ids that a caller counts up do not collide with those of the
        // calls.
        const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        Self(Uuid::from_u128(self.0.as_u128().wrapping_add(STEP.wrapping_mul(number as u128))))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            IdRepr::Uuid(uuid) => fmt::Display::fmt(uuid, f),
            IdRepr::Key(key) => f.pad(key),
        }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Conversions from and to text, for all three types.
macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl FromStr for $name {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self> {
                Self::new(s)
            }
        }
        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(s: &str) -> Result<Self> {
                Self::new(s)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(s: String) -> Result<Self> {
                Self::new(s)
            }
        }
        impl TryFrom<&String> for $name {
            type Error = Error;
            fn try_from(s: &String) -> Result<Self> {
                Self::new(s)
            }
        }
        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(Cow::<str>::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(QueueName GroupName TaskId);

macro_rules! shown_as_str {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
shown_as_str!(QueueName GroupName);

/// At most 64 characters of text from outside, without control characters, for an error message.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

/// The UUID of which `key` is the canonical spelling. Any other spelling is a key, not a UUID.
fn canonical_uuid(key: &str) -> Option<Uuid> {
    if key.len() != uuid::fmt::Hyphenated::LENGTH || key.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(key).ok()
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    check_length(what, text, bytes_max)?;
    if text.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Invalid, format!("{what} `{}` contains a control character", shown(text))));
    }
    Ok(())
}

fn check_length(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("a {what} can't be empty")));
    }
    if text.len() > bytes_max {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{what} `{}` is {} bytes long; the limit is {bytes_max} bytes", shown(text), text.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_1_names_are_checked_where_they_are_made() {
        assert!(QueueName::new("exam.hand-in_2").is_ok());
        assert!(QueueName::new("a".repeat(128)).is_ok());
        for (bad, kind) in [
            (String::new(), ErrorKind::Invalid),
            ("a b".into(), ErrorKind::Invalid),
            ("{x}".into(), ErrorKind::Invalid),
            ("é".into(), ErrorKind::Invalid),
            ("a".repeat(129), ErrorKind::TooLarge),
        ] {
            assert_eq!(QueueName::new(&bad).unwrap_err().kind(), kind, "{bad}");
        }
        assert!(GroupName::new("Raum 12, Übung").is_ok());
        assert_eq!(GroupName::new("a\0b").unwrap_err().kind(), ErrorKind::Invalid);
        assert!(TaskId::new("x".repeat(256)).is_ok());
        assert_eq!(TaskId::new("x".repeat(257)).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn an_id_written_like_a_uuid_is_that_uuid() {
        let uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff);
        assert_eq!(TaskId::new(uuid.to_string()).unwrap(), TaskId::from(uuid));
        let upper = TaskId::new(uuid.to_string().to_uppercase()).unwrap();
        assert_ne!(upper, TaskId::from(uuid), "another spelling must not be taken for the same key");
        assert_eq!(upper.to_string(), uuid.to_string().to_uppercase());
    }

    #[test]
    fn text_from_outside_is_cut_and_cleaned_in_messages() {
        let e = GroupName::new(format!("{}\n", "x".repeat(100))).unwrap_err();
        assert!(e.message().len() < 200 && !e.message().contains('\n'), "{e}");
    }
}
