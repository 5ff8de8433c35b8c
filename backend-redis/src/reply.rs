//! What scripts answer: now, then values one after the other.

use delayline_core::{Error, ErrorKind, Result};
use redis::Value;

/// An answer that is being read.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Redis's clock, in microseconds.
    pub(crate) now_us: u64,
    rest: std::vec::IntoIter<Value>,
}

/// Why a script did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue is laid out in another way, which is this.
    Layout(Vec<u8>),
    /// The due time is out of range.
    Range,
    /// The operation id is another change's.
    Operation,
}

impl Reply {
    /// Begins to read; the inner error is a refusal.
    pub(crate) fn of(value: Value) -> Result<Result<Self, Refusal>> {
        let Value::Array(values) = value else { return Err(unreadable()) };
        let mut rest = values.into_iter();
        match rest.next() {
            Some(Value::Int(now)) => Ok(Ok(Self { now_us: u64::try_from(now).map_err(|_| unreadable())?, rest })),
            Some(Value::BulkString(word)) => match word.as_slice() {
                b"layout" => match rest.next() {
                    Some(Value::BulkString(layout)) => Ok(Err(Refusal::Layout(layout))),
                    _ => Err(unreadable()),
                },
                b"range" => Ok(Err(Refusal::Range)),
                b"operation" => Ok(Err(Refusal::Operation)),
                _ => Err(unreadable()),
            },
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// A number that may be -1 for none.
    pub(crate) fn int(&mut self) -> Result<i64> {
        match self.rest.next() {
            Some(Value::Int(n)) => Ok(n),
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        u64::try_from(self.int()?).map_err(|_| unreadable())
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.bytes_or_nil()?.ok_or_else(unreadable)
    }

    pub(crate) fn bytes_or_nil(&mut self) -> Result<Option<Vec<u8>>> {
        match self.rest.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) => Ok(None),
            _ => Err(unreadable()),
        }
    }
}

const UNREADABLE: &str = "a script's answer has another shape than it should have";

/// The error for an answer that nothing of ours gave.
pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, UNREADABLE)
}

/// Whether the error is that of an answer, so that what the script did is done.
pub(crate) fn is_unreadable(e: &Error) -> bool {
    e.kind() == ErrorKind::Corrupt && e.message() == UNREADABLE
}
