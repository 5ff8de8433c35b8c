//! Turns the answer for a batch into one answer for each item, even if the backend returns too few or too many.

use crate::{Error, ErrorKind, Result};

/// The answer for a batch as one answer for each of the `asked` items.
pub(crate) fn spread<T>(answer: Result<Vec<Result<T>>>, asked: usize) -> Vec<Result<T>> {
    let mut answers = answer.unwrap_or_else(|e| (0..asked).map(|_| Err(e.clone())).collect());
    answers.truncate(asked);
    answers.resize_with(asked, || Err(unanswered()));
    answers
}

/// The answer for a batch of one item.
pub(crate) fn only<T>(answers: Vec<Result<T>>) -> Result<T> {
    answers.into_iter().next().unwrap_or_else(|| Err(unanswered()))
}

/// The error for a backend that did not return one answer for each item.
pub(crate) fn unanswered() -> Error {
    Error::new(ErrorKind::Ambiguous, "the backend gave no answer for this item; this is a bug in the backend")
}
