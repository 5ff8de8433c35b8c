//! Handlers of any payload type, type-erased into two forms.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::context::Context;
use super::outcome::HandlerOutcome;
use crate::Queue;
use crate::consume::undecoded::{Undecoded, decode};

/// The handler of a queue.
pub(super) enum Handler {
    /// Handles one task per call.
    One(Box<One>),
    /// Handles all tasks that are due, up to `max` per call.
    Many { max: usize, run: Box<Many> },
}

type One = dyn Fn(Bytes, Context) -> Handling<Answer> + Send + Sync;
type Many = dyn Fn(Vec<(Bytes, Context)>) -> Decoded + Send + Sync;
type Handling<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The result of handling one task.
pub(super) enum Answer {
    Given(HandlerOutcome),
    /// The handler never saw it.
    Undecoded(Undecoded),
}

/// Several decoded tasks that are about to be handled.
pub(super) struct Decoded {
    /// For each task, why it can't be decoded; `None` if it was decoded.
    pub(super) undecoded: Vec<Option<Undecoded>>,
    /// One outcome for each decoded task, if the handler returns as many as it should.
    pub(super) handling: Handling<Vec<HandlerOutcome>>,
}

impl Handler {
    pub(super) fn one<T, H, F>(queue: Queue<T>, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(T, Context) -> F + Send + Sync + 'static,
        F: Future<Output: Into<HandlerOutcome>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::One(Box::new(move |payload, context| {
            let (queue, handler) = (queue.clone(), handler.clone());
            Box::pin(async move {
                match decode(&queue, &payload) {
                    Ok(task) => Answer::Given(handler(task, context).await.into()),
                    Err(why) => Answer::Undecoded(why),
                }
            })
        }))
    }

    pub(super) fn many<T, H, F>(queue: Queue<T>, max: usize, handler: H) -> Self
    where
        T: Send + 'static,
        H: Fn(Vec<(T, Context)>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<HandlerOutcome>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run = move |tasks: Vec<(Bytes, Context)>| {
            let mut good = Vec::with_capacity(tasks.len());
            let mut sort = |(payload, context)| decode(&queue, &payload).map(|task| good.push((task, context))).err();
            let undecoded = tasks.into_iter().map(&mut sort).collect();
            let handler = handler.clone();
            let handling = Box::pin(async move { if good.is_empty() { Vec::new() } else { handler(good).await } });
            Decoded { undecoded, handling }
        };
        Self::Many { max, run: Box::new(run) }
    }
}
