//! Reads the replies of scripts: the server's time, then a sequence of values.

use delayline_core::{Error, ErrorKind, Result};
use redis::Value;

/// A reply that is being read.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Redis's clock, in microseconds.
    pub(crate) now_us: u64,
    rest: std::vec::IntoIter<Value>,
}

/// Why a script changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue has another layout: this one.
    Layout(Vec<u8>),
    /// The due time is out of range.
    Range,
    /// The operation id was used for a different change.
    Operation,
}

impl Reply {
    /// Starts to read a reply. The inner error is a refusal by the script.
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

    /// Reads a number that is -1 for none.
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

const UNREADABLE: &str = "unexpected reply of a script";

/// The error for a reply that no script of this backend returns.
pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, UNREADABLE)
}

/// Reads a script's reply item by item.
///
/// # Errors
/// Those of the call, and [`Ambiguous`](ErrorKind::Ambiguous) for a reply that can't be read: what the script did is
/// unknown.
pub(crate) fn answered<T>(
    reply: Result<Reply>,
    read: impl FnOnce(Reply) -> Result<Vec<Result<T>>>,
) -> Result<Vec<Result<T>>> {
    reply.and_then(read).map_err(|e| match e.kind() {
        ErrorKind::Corrupt if e.message() == UNREADABLE => Error::new(ErrorKind::Ambiguous, UNREADABLE),
        _ => e,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_3_what_a_script_did_whose_answer_cannot_be_read_is_unknown() {
        let reply = |values: Vec<Value>| Ok(Reply::of(Value::Array(values))?.unwrap());
        let read = |mut reply: Reply| (0..reply.left()).map(|_| reply.number().map(Ok)).collect();
        let answers = answered(reply(vec![Value::Int(5), Value::Int(3)]), read).unwrap();
        assert_eq!(*answers[0].as_ref().unwrap(), 3);
        for broken in [reply(vec![Value::Int(5), Value::Nil]), Reply::of(Value::Okay).map(|reply| reply.unwrap())] {
            assert_eq!(answered(broken, read).unwrap_err().kind(), ErrorKind::Ambiguous);
        }
        let full = Error::new(ErrorKind::Full, "no room");
        assert_eq!(answered(Err(full), read).unwrap_err().kind(), ErrorKind::Full);
    }
}
