//! Handlers of any payload type behind two shapes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::{Context, Handled};
use crate::{Error, Queue};

/// What runs the tasks of a queue.
pub(super) enum Handler {
    /// One at a time.
    One(Box<One>),
    /// All that are due at once, up to `max`.
    Many { max: usize, run: Box<Many> },
}

type One = dyn Fn(Bytes, Context) -> Handling<Outcome> + Send + Sync;
type Many = dyn Fn(Vec<(Bytes, Context)>) -> Decoded + Send + Sync;
type Handling<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What became of one task in a handler.
pub(super) enum Outcome {
    Handled(Handled),
    /// The handler never saw it.
    Undecodable(Error),
}

/// Several tasks that are about to be handled.
pub(super) struct Decoded {
    /// For each, the error if it can't be decoded.
    pub(super) undecodable: Vec<Option<Error>>,
    /// One answer for each of the others, if the handler keeps to the rule.
    pub(super) handling: Handling<Vec<Handled>>,
}

impl Handler {
    pub(super) fn one<T, H, F>(queue: Queue<T>, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(T, Context) -> F + Send + Sync + 'static,
        F: Future<Output: Into<Handled>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::One(Box::new(move |payload, context| {
            let (queue, handler) = (queue.clone(), handler.clone());
            Box::pin(async move {
                match queue.decode(&payload) {
                    Ok(task) => Outcome::Handled(handler(task, context).await.into()),
                    Err(e) => Outcome::Undecodable(e),
                }
            })
        }))
    }

    pub(super) fn many<T, H, F>(queue: Queue<T>, max: usize, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(Vec<(T, Context)>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<Handled>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run = move |tasks: Vec<(Bytes, Context)>| {
            let mut good = Vec::with_capacity(tasks.len());
            let mut decode = |(payload, context)| queue.decode(&payload).map(|task| good.push((task, context))).err();
            let undecodable = tasks.into_iter().map(&mut decode).collect();
            let handler = handler.clone();
            let handling = Box::pin(async move { if good.is_empty() { Vec::new() } else { handler(good).await } });
            Decoded { undecodable, handling }
        };
        Self::Many { max, run: Box::new(run) }
    }
}
