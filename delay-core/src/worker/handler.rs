//! Handlers of any payload type behind one shape.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::{Context, Handled};
use crate::{Error, Queue};

/// What became of one task in a handler.
pub(super) enum Outcome {
    Handled(Handled),
    /// The handler never saw it.
    Undecodable(Error),
}

/// Handles tasks that came together: one answer for each, in order.
pub(super) type Handler = dyn Fn(Vec<(Bytes, Context)>) -> Handling + Send + Sync;
pub(super) type Handling = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>;

/// A handler of one task at a time.
pub(super) fn single<T, H, F>(queue: Queue<T>, handler: H) -> Arc<Handler>
where
    T: Send + 'static,
    H: Fn(T, Context) -> F + Send + Sync + 'static,
    F: Future<Output: Into<Handled>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |tasks| {
        let (queue, handler) = (queue.clone(), handler.clone());
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(tasks.len());
            for (payload, context) in tasks {
                outcomes.push(match queue.decode(&payload) {
                    Ok(task) => Outcome::Handled(handler(task, context).await.into()),
                    Err(e) => Outcome::Undecodable(e),
                });
            }
            outcomes
        })
    })
}

/// A handler of several tasks at once.
pub(super) fn batch<T, H, F>(queue: Queue<T>, handler: H) -> Arc<Handler>
where
    T: Send + 'static,
    H: Fn(Vec<(T, Context)>) -> F + Send + Sync + 'static,
    F: Future<Output = Vec<Handled>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |tasks| {
        let (queue, handler) = (queue.clone(), handler.clone());
        Box::pin(async move {
            let mut good = Vec::with_capacity(tasks.len());
            let undecodable: Vec<Option<Error>> = tasks
                .into_iter()
                .map(|(payload, context)| queue.decode(&payload).map(|task| good.push((task, context))).err())
                .collect();
            let given = good.len();
            let answers = if given == 0 { Vec::new() } else { handler(good).await };
            spread(undecodable, answers, given)
        })
    })
}

/// Puts the answers of a batch handler to the tasks that it was given.
fn spread(undecodable: Vec<Option<Error>>, answers: Vec<Handled>, given: usize) -> Vec<Outcome> {
    let answered = answers.len();
    let mut answers = answers.into_iter();
    let missing = || Handled::retry(format!("the batch handler gave {answered} answers for {given} tasks"));
    undecodable
        .into_iter()
        .map(|e| match e {
            Some(e) => Outcome::Undecodable(e),
            None => Outcome::Handled(answers.next().unwrap_or_else(missing)),
        })
        .collect()
}
