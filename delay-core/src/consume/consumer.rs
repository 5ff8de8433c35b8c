//! Pulling due tasks one by one or in batches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::RetryPolicy;
use super::delivery::{Delivery, Hold};
use super::fetch::{Fetched, Fetcher};
use super::settle::{Settling, settle};
use super::undecoded::{Undecoded, decode, why_dead_lettered, why_retried};
use crate::client::line::Line;
use crate::{Claim, Disposition, Error, ErrorKind, Queue, Result, SubscriptionOptions};

/// How long a task is one's own unless told.
pub(crate) const LEASE_DEFAULT: Duration = Duration::from_secs(30);

impl<T: 'static> Queue<T> {
    /// Begins to consume it by pulling. To have tasks run instead, see [`Worker`](crate::Worker).
    pub fn consumer(&self) -> ConsumerBuilder<T> {
        ConsumerBuilder::new(self.clone())
    }
}

/// How a queue is to be pulled from. Made by [`Queue::consumer`].
#[must_use = "a consumer is made by `open`"]
pub struct ConsumerBuilder<T> {
    queue: Queue<T>,
    lease: Duration,
    retry: RetryPolicy,
    options: SubscriptionOptions,
}

impl<T: 'static> ConsumerBuilder<T> {
    fn new(queue: Queue<T>) -> Self {
        Self { queue, lease: LEASE_DEFAULT, retry: RetryPolicy::default(), options: SubscriptionOptions::default() }
    }

    /// How long a task is the consumer's, from the claim: 1 ms to
    /// [`Capabilities::lease_max`](crate::Capabilities), 30 s unless told.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// When a task is tried again that was dropped unsettled, or retried without a time.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// A name, shown where the store can show one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.consumer = Some(name.into());
        self
    }

    /// Begins to consume.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) for the lease, and those of
    /// [`DelayBackend::subscription`](crate::DelayBackend::subscription). It is not repeated: a start that fails is for its
    /// caller to judge.
    ///
    /// # Cancel safety
    /// Dropped, nothing stays open.
    pub async fn open(self) -> Result<Consumer<T>> {
        self.queue.backend().capabilities().check_lease(self.lease)?;
        let mut fetcher = Fetcher::new(self.queue.line().clone(), self.options);
        fetcher.open().await?;
        Ok(Consumer { queue: self.queue, fetcher, lease: self.lease, retry: self.retry })
    }
}

impl<T: 'static> fmt::Debug for ConsumerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("queue", &self.queue)
            .field("lease", &self.lease)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Hands out a queue's tasks to a caller who pulls.
///
/// It claims nothing ahead: what it has claimed, it has returned. While the store can't be reached, its calls wait and
/// try again, which is logged once. A payload that can't be decoded is dead-lettered with the reason and never surfaces; one on
/// which the codec panics is retried by the [`RetryPolicy`].
///
/// # Errors
/// Its waiting calls answer only what will not pass: [`Closed`](ErrorKind::Closed), [`Denied`](ErrorKind::Denied),
/// [`Incompatible`](ErrorKind::Incompatible) and their like.
///
/// # Cancel safety
/// Every call may be dropped at any await point: what it had claimed is given back at once, and the next call goes on.
/// Dropping the consumer ends it; deliveries that it returned stay valid.
pub struct Consumer<T> {
    queue: Queue<T>,
    fetcher: Fetcher,
    lease: Duration,
    retry: RetryPolicy,
}

impl<T: 'static> Consumer<T> {
    /// The next task, as soon as one is due.
    ///
    /// # Errors
    /// Only what [will not pass](Self#errors).
    pub async fn next(&mut self) -> Result<Delivery<T>> {
        loop {
            if let Some(delivery) = self.wait_for(1, None).await?.pop() {
                return Ok(delivery);
            }
        }
    }

    /// Due tasks, at most `max` and [`Capabilities::batch_max`](crate::Capabilities) of them: waits for one, never for
    /// more. None, without waiting, if `max` is 0.
    ///
    /// # Errors
    /// Only what [will not pass](Self#errors).
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery<T>>> {
        self.wait_for(max, None).await
    }

    /// The next task, or `None` if none becomes due for this long. A call to the store that is under way by then is
    /// waited for.
    ///
    /// # Errors
    /// Only what [will not pass](Self#errors).
    pub async fn next_within(&mut self, at_most: Duration) -> Result<Option<Delivery<T>>> {
        let until = Instant::now().checked_add(at_most);
        Ok(self.wait_for(1, until).await?.pop())
    }

    /// What is due now, at most `max` and [`Capabilities::batch_max`](crate::Capabilities) of it; never waits for tasks.
    ///
    /// # Errors
    /// Unlike the calls that wait, also what may pass.
    pub async fn try_next_batch(&mut self, max: usize) -> Result<Vec<Delivery<T>>> {
        loop {
            let (deliveries, undecoded) = self.claim(max).await?;
            if let Some(e) = self.fetcher.last_failure() {
                return Err(e);
            }
            if !deliveries.is_empty() || undecoded.is_none() {
                return Ok(deliveries);
            }
            put_away_by_now(undecoded).await;
        }
    }

    /// The tasks as a stream, one at a time, which ends after the first error.
    ///
    /// Dropping the stream ends the consumer.
    pub fn into_stream(self) -> impl Stream<Item = Result<Delivery<T>>> {
        stream::unfold(Some(self), |consumer| async move {
            let mut consumer = consumer?;
            match consumer.next().await {
                Ok(delivery) => Some((Ok(delivery), Some(consumer))),
                Err(e) => Some((Err(e), None)),
            }
        })
    }

    /// Settles many deliveries of this queue in as few calls as possible, with one answer for each, in order.
    ///
    /// # Errors
    /// An outer `Err` is what will not pass and kept all of them from taking effect; inner errors are as for every
    /// [settling](Delivery#errors), and [`Invalid`](ErrorKind::Invalid) for a delivery of another queue, which is then
    /// retried.
    ///
    /// # Cancel safety
    /// As for every [settling](Delivery#cancel-safety).
    pub fn settle_all(
        &self,
        settled: Vec<(Delivery<T>, Disposition)>,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send + use<T> {
        let line = self.queue.line().clone();
        // Without the payloads, so that the future can be sent whatever they are.
        let holds = settled.into_iter().map(|(delivery, disposition)| (delivery.into_hold(), disposition)).collect();
        settle_holds(line, holds)
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// What stands in the way of giving back what it holds.
    ///
    /// # Cancel safety
    /// Dropped, it ends as when the consumer is dropped.
    pub async fn close(self) -> Result<()> {
        self.fetcher.close().await
    }

    /// At least one task, or none if `max` is 0 or `until` passes.
    async fn wait_for(&mut self, max: usize, until: Option<Instant>) -> Result<Vec<Delivery<T>>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let (deliveries, undecoded) = self.claim(max).await?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            put_away_by_now(undecoded).await;
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Vec::new());
            }
            self.fetcher.rest(until).await;
        }
    }

    /// Claims and decodes. What can't be decoded is settled by a task of its own, so that what can be is not held up,
    /// and nothing is lost if the caller is dropped.
    async fn claim(&mut self, max: usize) -> Result<(Vec<Delivery<T>>, Option<JoinHandle<()>>)> {
        let Fetched { tasks, ends } = self.fetcher.claim(Claim::new(max, self.lease)).await?;
        let (mut deliveries, mut undecoded) = (Vec::with_capacity(tasks.len()), Vec::new());
        let line = self.queue.line();
        for mut task in tasks {
            let disposition = match decode(&self.queue, &std::mem::take(&mut task.payload)) {
                Ok(payload) => {
                    deliveries.push(Delivery::new(payload, Hold::new(line.clone(), self.retry.clone(), task, ends)));
                    continue;
                }
                Err(Undecoded::Refused(e)) => {
                    Disposition::DeadLetter { reason: why_dead_lettered(&line.name, &task.lease, &e) }
                }
                Err(Undecoded::Panicked(message)) => Disposition::Retry {
                    after: self.retry.delay_on(line, task.lease.attempt),
                    reason: why_retried(&line.name, &task.lease, &message),
                },
            };
            undecoded.push(Settling { lease: task.lease, ends, disposition, attempts_max: task.attempts_max });
        }
        Ok((deliveries, (!undecoded.is_empty()).then(|| put_away(line.clone(), undecoded))))
    }
}

impl<T: 'static> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("queue", &self.queue)
            .field("lease", &self.lease)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

fn put_away(line: Arc<Line>, undecoded: Vec<Settling>) -> JoinHandle<()> {
    let settling = async move {
        for e in settle(&line, &undecoded).await.into_iter().filter_map(Result::err) {
            tracing::warn!(queue = %line.name, error = %e, "a task that can't be decoded could not be settled");
        }
    };
    tokio::spawn(settling.in_current_span())
}

/// Waits for it, so that at most one is under way for each consumer that has nothing else to do.
async fn put_away_by_now(undecoded: Option<JoinHandle<()>>) {
    if let Some(settling) = undecoded {
        // It fails only when the runtime shuts down.
        let _ = settling.await;
    }
}

async fn settle_holds(line: Arc<Line>, holds: Vec<(Hold, Disposition)>) -> Result<Vec<Result<()>>> {
    let mut answers = Vec::with_capacity(holds.len());
    let (mut ours, mut settlings) = (Vec::new(), Vec::new());
    for (place, (mut hold, disposition)) in holds.into_iter().enumerate() {
        if hold.same_queue(&line) {
            settlings.push(hold.say(disposition));
            ours.push((place, hold));
            answers.push(Ok(()));
        } else {
            answers.push(Err(Error::new(ErrorKind::Invalid, "this delivery is another queue's")));
        }
    }
    let settled = settle(&line, &settlings).await;
    let closed = |answer: &Result<()>| answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closed);
    let all_closed =
        settled.iter().all(closed).then(|| settled.iter().find_map(|a| a.as_ref().err().cloned())).flatten();
    for ((place, mut hold), answer) in ours.into_iter().zip(settled) {
        hold.heard(&answer);
        answers[place] = answer;
    }
    all_closed.map_or(Ok(answers), Err)
}
