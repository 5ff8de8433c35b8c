//! One answer for each item of a call that is sent in pieces (LOSS-3).

use delayline_core::{Error, ErrorKind, Result};

/// The answers for the items of a call so far.
#[derive(Debug)]
pub struct Answers<T> {
    items: Vec<Option<Result<T>>>,
    /// The error after which no further piece is sent.
    failed: Option<Error>,
}

impl<T> Answers<T> {
    /// Creates an empty collection for this many items.
    #[must_use]
    pub fn new(items: usize) -> Self {
        Self { items: (0..items).map(|_| None).collect(), failed: None }
    }

    /// Whether a piece has failed, so that no further piece is sent.
    #[must_use]
    pub fn have_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether an item has an answer.
    ///
    /// # Panics
    /// If there is no such item.
    #[must_use]
    pub fn has(&self, at: usize) -> bool {
        self.items[at].is_some()
    }

    /// Sets the answer for one item.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn set(&mut self, at: usize, answer: Result<T>) {
        self.items[at] = Some(answer);
    }

    /// Records the answer for a piece: one per item, or the error of the whole piece.
    ///
    /// `piece` lists the positions of its items in the call. If the number of answers differs from the number of items,
    /// the outcome of the piece is unknown, and its items answer [`Ambiguous`](ErrorKind::Ambiguous).
    ///
    /// # Panics
    /// If there is no such item.
    pub fn piece(&mut self, piece: &[usize], answers: Result<Vec<Result<T>>>) {
        match answers {
            Ok(answers) if answers.len() == piece.len() => {
                piece.iter().zip(answers).for_each(|(&at, answer)| self.set(at, answer));
            }
            Ok(answers) => {
                let (asked, answered) = (piece.len(), answers.len());
                let what = format!("the store answered {answered} of {asked} items; their outcome is unknown");
                self.fail(piece, Error::new(ErrorKind::Ambiguous, what));
            }
            Err(e) => self.fail(piece, e),
        }
    }

    /// Records that a piece failed as a whole or, with no items, that no further piece can be sent.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn fail(&mut self, piece: &[usize], e: Error) {
        piece.iter().for_each(|&at| self.set(at, Err(e.clone())));
        self.failed = Some(e);
    }

    /// Returns one answer for each item. Items that were not sent because an earlier piece failed answer with the kind
    /// of that error, or with [`Unavailable`](ErrorKind::Unavailable) if the kind is
    /// [`Ambiguous`](ErrorKind::Ambiguous).
    ///
    /// # Errors
    /// The error of the failed piece, if no item succeeded and nothing can have taken effect.
    pub fn finish(self) -> Result<Vec<Result<T>>> {
        let Some(e) = self.failed else {
            let forgotten = || Err(Error::new(ErrorKind::Ambiguous, "the store did not answer this item"));
            return Ok(self.items.into_iter().map(|item| item.unwrap_or_else(forgotten)).collect());
        };
        let without_effect = |item: &Option<Result<T>>| match item {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(own)) => own.kind() == e.kind() && own.kind() != ErrorKind::Ambiguous,
        };
        if self.items.iter().all(without_effect) {
            return Err(e);
        }
        Ok(self.items.into_iter().map(|item| item.unwrap_or_else(|| Err(unsent(&e)))).collect())
    }
}

/// The answer for an item that was not sent because an earlier piece failed with `e`.
#[must_use]
pub fn unsent(e: &Error) -> Error {
    let kind = if e.kind() == ErrorKind::Ambiguous { ErrorKind::Unavailable } else { e.kind() };
    Error::new(kind, format!("not sent, because an earlier part of the call failed: {}", e.message()))
}

/// Maximum size of one piece of a call.
#[derive(Clone, Copy, Debug)]
pub struct PieceMax {
    /// Maximum number of items.
    pub items: usize,
    /// Maximum number of bytes. A single item may be larger.
    pub bytes: usize,
}

impl PieceMax {
    /// Splits a list into pieces, in its order. `size` returns an item's size in bytes.
    pub fn cut<T>(self, items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
        let mut pieces = Vec::new();
        let mut piece = Vec::with_capacity(items.len().min(self.items));
        let mut bytes = 0;
        for item in items {
            let more = size(&item);
            if piece.len() == self.items || (bytes + more > self.bytes && !piece.is_empty()) {
                pieces.push(std::mem::take(&mut piece));
                bytes = 0;
            }
            bytes += more;
            piece.push(item);
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(answers: Answers<u64>) -> Result<Vec<Result<u64, ErrorKind>>, ErrorKind> {
        let answers = answers.finish().map_err(|e| e.kind())?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|e| e.kind())).collect())
    }

    #[test]
    fn loss_3_a_piece_of_another_length_is_unknown_and_the_others_have_their_answers() {
        for broken in [vec![Ok(3)], vec![Ok(3), Ok(4), Ok(5)], vec![]] {
            let mut answers = Answers::new(5);
            answers.piece(&[0, 3], Ok(vec![Ok(1), Ok(2)]));
            assert!(!answers.have_failed());
            answers.piece(&[1, 2], Ok(broken));
            assert!(answers.have_failed());
            let (unknown, unsent) = (Err(ErrorKind::Ambiguous), Err(ErrorKind::Unavailable));
            assert_eq!(kinds(answers), Ok(vec![Ok(1), unknown, unknown, Ok(2), unsent]));
        }
        let mut answers = Answers::new(2);
        answers.set(1, Ok(7));
        assert!(answers.has(1) && !answers.has(0));
        assert_eq!(kinds(answers), Ok(vec![Err(ErrorKind::Ambiguous), Ok(7)]), "one that was forgotten");
    }

    #[test]
    fn loss_3_a_failure_without_effect_is_that_of_the_whole_call() {
        let full = || Error::new(ErrorKind::Full, "no room");
        let mut answers: Answers<u64> = Answers::new(2);
        answers.piece(&[0], Err(full()));
        assert_eq!(kinds(answers), Err(ErrorKind::Full));
        let mut answers: Answers<u64> = Answers::new(2);
        answers.piece(&[0], Err(Error::new(ErrorKind::Ambiguous, "lost")));
        assert_eq!(kinds(answers), Ok(vec![Err(ErrorKind::Ambiguous), Err(ErrorKind::Unavailable)]));
        let mut answers: Answers<u64> = Answers::new(1);
        answers.fail(&[], full());
        assert_eq!(kinds(answers), Err(ErrorKind::Full), "before anything was sent");
        let mut answers: Answers<u64> = Answers::new(2);
        answers.set(1, Err(Error::new(ErrorKind::Invalid, "never")));
        answers.piece(&[0], Err(full()));
        assert_eq!(kinds(answers), Ok(vec![Err(ErrorKind::Full), Err(ErrorKind::Invalid)]));
    }

    #[test]
    fn pieces_are_bounded_in_items_and_bytes_and_one_item_may_be_larger() {
        let cut = |items: Vec<usize>| PieceMax { items: 3, bytes: 10 }.cut(items, |size| *size);
        assert!(cut(vec![]).is_empty());
        assert_eq!(cut(vec![1, 2, 3, 4]), [vec![1, 2, 3], vec![4]]);
        assert_eq!(cut(vec![5, 5, 1, 50, 2]), [vec![5, 5], vec![1], vec![50], vec![2]]);
    }
}
