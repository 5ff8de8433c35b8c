//! Pulling due tasks, one by one or in batches.

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

/// Default lease duration of consumers and workers.
pub(crate) const LEASE_DEFAULT: Duration = Duration::from_secs(30);

impl<T: 'static> Queue<T> {
    /// Starts to build a consumer, which pulls the queue's tasks. To run a handler for each task instead, use a
    /// [`Worker`](crate::Worker).
    pub fn consumer(&self) -> ConsumerBuilder<T> {
        ConsumerBuilder::new(self.clone())
    }
}

/// Builder of a [`Consumer`]. Made by [`Queue::consumer`].
#[must_use = "a consumer is made by `open`"]
pub struct ConsumerBuilder<T> {
    queue: Queue<T>,
    lease: Duration,
    retry: RetryPolicy,
    fail_fast: bool,
    options: SubscriptionOptions,
}

impl<T: 'static> ConsumerBuilder<T> {
    fn new(queue: Queue<T>) -> Self {
        let options = SubscriptionOptions::default();
        Self { queue, lease: LEASE_DEFAULT, retry: RetryPolicy::default(), fail_fast: false, options }
    }

    /// Lease duration, from the claim; the consumer does not renew it by itself. Default: 30 s. Range: 1 ms to
    /// [`Capabilities::lease_max`](crate::Capabilities).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Retry policy for tasks that are dropped unsettled or retried without a delay. Default: [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Whether a refusal is an error at any time: `Denied`, `Incompatible`, `Config`, `Corrupt`. Default: `false`, so that
    /// only the first claim fails for it; later, the consumer waits and retries as in an outage.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.fail_fast = fail_fast;
        self
    }

    /// Name of the consumer, shown where the store has a place for it. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.consumer = Some(name.into());
        self
    }

    /// Opens the consumer.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) for the lease duration, and those of
    /// [`DelayBackend::subscribe`](crate::DelayBackend::subscribe). Unlike the consumer's other calls, `open` does not
    /// retry: its caller decides what to do about a failed start.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing open.
    pub async fn open(self) -> Result<Consumer<T>> {
        self.queue.backend().capabilities().check_lease(self.lease)?;
        let mut fetcher = Fetcher::new(self.queue.line().clone(), self.options, self.fail_fast);
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

/// Delivers the tasks of a queue to a caller who pulls them.
///
/// A consumer claims nothing ahead: it returns every task that it claims. While the store can't be reached, or refuses
/// what it answered before, its calls wait and retry; the outage is logged once. A task whose payload can't be decoded is dead-lettered with the reason,
/// and never returned. If the codec panics, the task is retried by the [`RetryPolicy`].
///
/// # Errors
/// Waiting calls return only permanent errors: [`Closed`](ErrorKind::Closed), and from the first claim refusals such as
/// [`Denied`](ErrorKind::Denied) and [`Incompatible`](ErrorKind::Incompatible), which pass later
/// ([`fail_fast`](ConsumerBuilder::fail_fast)).
///
/// # Cancel safety
/// Every call may be dropped at any await point: tasks that it claimed are given back at once, and the next call
/// continues. Dropping the consumer closes it. Deliveries that it returned stay valid.
pub struct Consumer<T> {
    queue: Queue<T>,
    fetcher: Fetcher,
    lease: Duration,
    retry: RetryPolicy,
}

impl<T: 'static> Consumer<T> {
    /// Waits for a due task and returns it.
    ///
    /// # Errors
    /// Only [permanent ones](Self#errors).
    pub async fn next(&mut self) -> Result<Delivery<T>> {
        loop {
            if let Some(delivery) = self.wait_for(1, None).await?.pop() {
                return Ok(delivery);
            }
        }
    }

    /// Waits for a due task, and returns it together with the others that are due: at most `max` and
    /// [`Capabilities::batch_max`](crate::Capabilities). If `max` is 0, returns none without waiting.
    ///
    /// # Errors
    /// Only [permanent ones](Self#errors).
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery<T>>> {
        self.wait_for(max, None).await
    }

    /// Waits at most `at_most` for a due task; returns `None` if no task became due. If a call to the store is under
    /// way at the end of that time, waits for it, too.
    ///
    /// # Errors
    /// Only [permanent ones](Self#errors).
    pub async fn next_within(&mut self, at_most: Duration) -> Result<Option<Delivery<T>>> {
        let until = Instant::now().checked_add(at_most);
        Ok(self.wait_for(1, until).await?.pop())
    }

    /// Returns the tasks that are due now, at most `max` and [`Capabilities::batch_max`](crate::Capabilities). Never
    /// waits for tasks.
    ///
    /// # Errors
    /// Unlike the waiting calls, also errors that may pass.
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

    /// Returns the tasks as a stream, one at a time. The stream ends after the first error.
    ///
    /// Dropping the stream closes the consumer.
    pub fn into_stream(self) -> impl Stream<Item = Result<Delivery<T>>> {
        stream::unfold(Some(self), |consumer| async move {
            let mut consumer = consumer?;
            match consumer.next().await {
                Ok(delivery) => Some((Ok(delivery), Some(consumer))),
                Err(e) => Some((Err(e), None)),
            }
        })
    }

    /// Settles many deliveries of this queue in as few calls as possible, and returns one result for each, in order.
    ///
    /// # Errors
    /// An outer `Err` is permanent, and means that none of them has taken effect. Inner errors are those of every
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
        // Without the payloads, so that the future is `Send` whatever their type is.
        let holds = settled.into_iter().map(|(delivery, disposition)| (delivery.into_hold(), disposition)).collect();
        settle_holds(line, holds)
    }

    /// Closes the consumer.
    ///
    /// # Errors
    /// The error that kept it from giving back what it holds.
    ///
    /// # Cancel safety
    /// If the call is dropped, the consumer closes as if it were dropped itself.
    pub async fn close(self) -> Result<()> {
        self.fetcher.close().await
    }

    /// Returns at least one task, or none if `max` is 0 or `until` passes.
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

    /// Claims and decodes. A spawned task settles what can't be decoded, so that the decoded tasks are not held up, and
    /// nothing is lost if the caller is dropped.
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
            tracing::warn!(queue = %line.name, error = %e, "could not settle a task whose payload can't be decoded");
        }
    };
    tokio::spawn(settling.in_current_span())
}

/// Waits for the settling, so that at most one is under way for each consumer that has nothing else to do.
async fn put_away_by_now(undecoded: Option<JoinHandle<()>>) {
    if let Some(settling) = undecoded {
        // This fails only when the runtime shuts down.
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
            answers.push(Err(Error::new(ErrorKind::Invalid, "this delivery belongs to another queue")));
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
