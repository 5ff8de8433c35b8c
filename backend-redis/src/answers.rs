//! One answer for each item of a call that is made in pieces (LOSS-3).

use delayline_core::{Error, ErrorKind, Result};

use crate::reply::{Reply, is_unreadable, unreadable};
use crate::shared::unsent;

/// What the items of a call were answered so far.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    items: Vec<Option<Result<T>>>,
    /// Why no further piece is sent.
    failed: Option<Error>,
}

impl<T> Answers<T> {
    /// None, of that many.
    pub(crate) fn new(items: usize) -> Self {
        Self { items: (0..items).map(|_| None).collect(), failed: None }
    }

    /// Whether a piece has failed.
    pub(crate) fn have_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Answers an item that is not sent.
    pub(crate) fn refuse(&mut self, at: usize, e: Error) {
        self.items[at] = Some(Err(e));
    }

    /// Notes what a piece was answered, item by item. What a piece did whose answer can't be read, nobody knows.
    pub(crate) fn piece(
        &mut self,
        piece: &[usize],
        reply: Result<Reply>,
        read: impl FnOnce(Reply) -> Result<Vec<Result<T>>>,
    ) {
        let answers = reply
            .and_then(read)
            .and_then(|answers| if answers.len() == piece.len() { Ok(answers) } else { Err(unreadable()) });
        match answers {
            Ok(answers) => {
                for (&at, answer) in piece.iter().zip(answers) {
                    self.items[at] = Some(answer);
                }
            }
            Err(e) => {
                let e = if is_unreadable(&e) { Error::new(ErrorKind::Ambiguous, e.message().to_owned()) } else { e };
                piece.iter().for_each(|&at| self.refuse(at, e.clone()));
                self.failed = Some(e);
            }
        }
    }

    /// One answer for each. If nothing was answered and nothing can have taken effect, the failure is that of all.
    pub(crate) fn finish(self) -> Result<Vec<Result<T>>> {
        let Some(e) = self.failed else {
            return self.items.into_iter().map(|item| item.ok_or_else(unreadable)).collect();
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

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn reply(values: Vec<Value>) -> Result<Reply> {
        Ok(Reply::of(Value::Array(values))?.unwrap())
    }

    fn read(mut reply: Reply) -> Result<Vec<Result<u64>>> {
        (0..reply.left()).map(|_| reply.number().map(Ok)).collect()
    }

    fn kinds(answers: Answers<u64>) -> Result<Vec<Result<u64, ErrorKind>>, ErrorKind> {
        let answers = answers.finish().map_err(|e| e.kind())?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|e| e.kind())).collect())
    }

    #[test]
    fn loss_3_a_piece_whose_answer_cannot_be_read_is_unknown_and_the_others_have_theirs() {
        let now = Value::Int(5);
        for (name, broken) in [
            ("too short", reply(vec![now.clone(), Value::Int(3)])),
            ("of another type", reply(vec![now.clone(), Value::Nil, Value::Int(4)])),
            ("no array", Reply::of(Value::Okay).map(|reply| reply.unwrap())),
        ] {
            let mut answers = Answers::new(5);
            answers.piece(&[0, 3], reply(vec![now.clone(), Value::Int(1), Value::Int(2)]), read);
            assert!(!answers.have_failed());
            answers.piece(&[1, 2], broken, read);
            assert!(answers.have_failed(), "{name}");
            let (unknown, unsent) = (Err(ErrorKind::Ambiguous), Err(ErrorKind::Unavailable));
            assert_eq!(kinds(answers), Ok(vec![Ok(1), unknown, unknown, Ok(2), unsent]), "{name}");
        }
    }

    #[test]
    fn loss_3_a_failure_without_effect_is_that_of_the_whole_call() {
        let full = || Error::new(ErrorKind::Full, "no room");
        let mut answers: Answers<u64> = Answers::new(2);
        answers.piece(&[0], Err(full()), read);
        assert_eq!(kinds(answers), Err(ErrorKind::Full));
        let mut answers: Answers<u64> = Answers::new(2);
        answers.piece(&[0], Err(Error::new(ErrorKind::Ambiguous, "lost")), read);
        assert_eq!(kinds(answers), Ok(vec![Err(ErrorKind::Ambiguous), Err(ErrorKind::Unavailable)]));
        let mut answers: Answers<u64> = Answers::new(2);
        answers.refuse(1, Error::new(ErrorKind::Invalid, "never"));
        answers.piece(&[0], Err(full()), read);
        assert_eq!(kinds(answers), Ok(vec![Err(ErrorKind::Full), Err(ErrorKind::Invalid)]));
    }
}
