//! Group commit: calls of single items that are made at the same time travel as one batch, without a linger.
//!
//! A call that finds nothing under way goes by itself, inside its caller: it costs no more than a direct one. Calls that
//! find one under way enter an inbox, which a task empties batch by batch: what arrives while one batch is out forms the
//! next. So the batches are as large as the store is slow.
//!
//! Invariants
//! 1. Nobody waits for a future that another caller has to poll: a call under way belongs either to its own caller alone,
//!    or to the task. So a caller that stops polling holds up nobody.
//! 2. The inbox is not empty only while the task lives, and the task ends only when it has seen it empty, both under the
//!    lock. If the task dies (a panic in the backend, a runtime that shuts down), it answers all who wait.
//! 3. An item is in the inbox only while its caller waits; a caller that is dropped takes it out. Once sent, a dropped
//!    caller only does not learn its outcome, unless it was the last of its batch: then the call is dropped too.
//! 4. Items are sent in the order in which they came in.
//! 5. What waits in an inbox is bounded in bytes: beyond that a call is refused at once, and nothing of it stays.

mod inbox;

use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Sleep, sleep, timeout};

use self::inbox::{Batch, Inbox};
#[cfg(delayline_interleaved)]
use crate::faults::{Fault, is_planted};
use crate::queue::line::{Line, only, spread};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::{Error, ErrorKind, Result};

/// A call without an answer for this long is given up, so that one that hangs does not hold up the next for ever.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A kind of call that can be joined.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    type Item: Send + Unpin + 'static;
    type Answer: Send + 'static;

    fn committer(line: &Line) -> &Committer<Self>;
    /// What an item adds to a call, in bytes, roughly.
    fn size(item: &Self::Item) -> usize;
    fn send(line: &Line, items: Vec<Self::Item>) -> Sending<'_, Self::Answer>;
}

/// A batch on its way.
pub(crate) type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<Result<T>>>> + Send + 'a>>;

/// Joins the calls of one kind for one queue.
pub(crate) struct Committer<K: Kind> {
    inbox: Mutex<Inbox<K>>,
    /// Calls that go by themselves and wait for their answer, and one for the task while it lives.
    under_way: AtomicUsize,
    /// Told when all callers of the batch that is out are gone.
    abandoned: Notify,
}

impl<K: Kind> Default for Committer<K> {
    fn default() -> Self {
        Self { inbox: Mutex::new(Inbox::new()), under_way: AtomicUsize::new(0), abandoned: Notify::new() }
    }
}

/// One call, made together with others where there are any.
///
/// Written by hand, because as an `async fn` it moved its item several times: on a store in memory that was a third of
/// the whole call.
///
/// # Cancel safety
/// Dropped before it was sent, it is not. After that, its outcome is not known.
pub(crate) struct Submit<'a, K: Kind> {
    line: &'a Arc<Line>,
    state: State<'a, K>,
}

enum State<'a, K: Kind> {
    New(K::Item),
    /// Goes by itself. From when on it has to wait for its answer, others see that it is under way, and it has a deadline: so
    /// a store that answers at once never has anybody wait, and needs no timer.
    Alone {
        sending: Sending<'a, K::Answer>,
        waits: Option<Waits<'a, K>>,
    },
    Together(Waiting<'a, K>),
    Ended,
}

/// Makes one call.
pub(crate) fn submit<K: Kind>(line: &Arc<Line>, item: K::Item) -> Submit<'_, K> {
    Submit { line, state: State::New(item) }
}

impl<K: Kind> Future for Submit<'_, K> {
    type Output = Result<K::Answer>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, State::New(_)) {
            // A store that answers at once would otherwise let a loop of calls keep its thread to itself.
            ready!(pin!(consume_budget()).poll(cx));
            this.state = match mem::replace(&mut this.state, State::Ended) {
                State::New(item) => match begin(this.line, item) {
                    Ok(begun) => begun,
                    Err(refused) => return Poll::Ready(Err(refused)),
                },
                other => other,
            };
        }
        let answer = match &mut this.state {
            State::Alone { sending, waits } => match sending.as_mut().poll(cx) {
                Poll::Ready(answer) => answer.and_then(only),
                Poll::Pending => Err(ready!(waits.get_or_insert_with(|| Waits::new(this.line)).poll(cx))),
            },
            State::Together(waiting) => ready!(waiting.poll(cx)),
            State::New(_) | State::Ended => return Poll::Pending,
        };
        this.state = State::Ended;
        Poll::Ready(answer)
    }
}

fn begin<K: Kind>(line: &Arc<Line>, item: K::Item) -> Result<State<'_, K>> {
    if K::committer(line).under_way.load(Ordering::Acquire) > 0
        // Otherwise nothing could be spawned that would empty the inbox.
        && let Ok(runtime) = Handle::try_current()
    {
        return Waiting::new(line, item, &runtime).map(State::Together);
    }
    Ok(State::Alone { sending: K::send(line, vec![item]), waits: None })
}

/// A call that goes by itself and has to wait for its answer.
struct Waits<'a, K: Kind> {
    _under_way: UnderWay<'a, K>,
    /// None outside a runtime.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<'a, K: Kind> Waits<'a, K> {
    fn new(line: &'a Line) -> Self {
        let deadline = Handle::try_current().ok().map(|_| Box::pin(sleep(ANSWER_PATIENCE)));
        Self { _under_way: UnderWay::new(line), deadline }
    }

    /// Ready once that took too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| too_late()),
            None => Poll::Pending,
        }
    }
}

fn too_late() -> Error {
    Error::new(ErrorKind::Ambiguous, format!("no answer within {ANSWER_PATIENCE:?}"))
}

/// Counts a call as under way until dropped.
struct UnderWay<'a, K: Kind>(&'a Committer<K>);

impl<'a, K: Kind> UnderWay<'a, K> {
    fn new(line: &'a Line) -> Self {
        let committer = K::committer(line);
        committer.under_way.fetch_add(1, Ordering::AcqRel);
        Self(committer)
    }
}

impl<K: Kind> Drop for UnderWay<'_, K> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A caller whose item is in the inbox or was sent from it. Dropped, it takes its item out, or tells that it is gone.
struct Waiting<'a, K: Kind> {
    committer: &'a Committer<K>,
    number: u64,
    answer: Option<oneshot::Receiver<Result<K::Answer>>>,
}

impl<'a, K: Kind> Waiting<'a, K> {
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) where too much waits already.
    fn new(line: &'a Arc<Line>, item: K::Item, runtime: &Handle) -> Result<Self> {
        let committer = K::committer(line);
        let (sender, receiver) = oneshot::channel();
        let bytes = K::size(&item);
        let mut inbox = committer.inbox.lock();
        if let Some(waiting) = inbox.too_full_for(bytes, line.joined_bytes_max) {
            drop(inbox);
            return Err(busy(line, waiting, bytes));
        }
        let (number, is_first) = inbox.push(item, bytes, sender);
        drop(inbox);
        if is_first {
            // Not under the lock: a runtime that has shut down drops it here and now.
            runtime.spawn(empty(Carrier::<K>::new(line.clone())));
        }
        Ok(Self { committer, number, answer: Some(receiver) })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<K::Answer>> {
        let Some(receiver) = &mut self.answer else { return Poll::Pending };
        let answer = ready!(Pin::new(receiver).poll(cx));
        self.answer = None;
        let died = |_| Err(Error::new(ErrorKind::Ambiguous, "the task that carried this call died under it"));
        Poll::Ready(answer.unwrap_or_else(died))
    }
}

fn busy(line: &Line, waiting: usize, bytes: usize) -> Error {
    let (name, max) = (&line.name, line.joined_bytes_max);
    let what = format!(
        "{waiting} bytes of calls to `{name}` wait for the store, and this call has {bytes}; `joined_bytes_max` is {max}: \
         await earlier calls first, or raise the limit"
    );
    Error::new(ErrorKind::Busy, what)
}

impl<K: Kind> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        #[cfg(delayline_interleaved)]
        if is_planted(Fault::ItemLeftBehind) {
            return;
        }
        if self.answer.take().is_some() {
            let (item, batch_abandoned) = self.committer.inbox.lock().leave(self.number);
            if batch_abandoned {
                self.committer.abandoned.notify_one();
            }
            // Not under the lock: it may be large.
            drop(item);
        }
    }
}

/// Sends batches until the inbox is empty.
async fn empty<K: Kind>(mut carrier: Carrier<K>) {
    while let Some(Batch { items, callers }) = carrier.next_batch() {
        let asked = items.len();
        let Some(answer) = carrier.send(items).await else { continue };
        for (caller, answer) in callers.into_iter().zip(spread(answer, asked)) {
            // Gone, where it does not want to know any more.
            let _ = caller.send(answer);
        }
        // Those who were answered may have more to say at once: let them, rather than send the few who are here already.
        yield_now().await;
    }
}

/// The task that empties the inbox, as a value: however it ends, nobody is left waiting.
struct Carrier<K: Kind> {
    line: Arc<Line>,
    /// Whether it has seen the inbox empty, so that what is there now is another's.
    ended: bool,
    kind: PhantomData<K>,
}

impl<K: Kind> Carrier<K> {
    fn new(line: Arc<Line>) -> Self {
        K::committer(&line).under_way.fetch_add(1, Ordering::AcqRel);
        Self { line, ended: false, kind: PhantomData }
    }

    fn committer(&self) -> &Committer<K> {
        K::committer(&self.line)
    }

    /// The next items; nothing, and the end of the task, if there are none.
    fn next_batch(&mut self) -> Option<Batch<K>> {
        #[cfg(delayline_interleaved)]
        if is_planted(Fault::CommitEndsLate) && self.committer().inbox.lock().is_empty() {
            self.ended = true;
            self.committer().inbox.lock().end();
            return None;
        }
        let batch = self.committer().inbox.lock().next_batch(self.line.batch_max());
        self.ended = batch.is_none();
        batch
    }

    /// Sends a batch, and gives it up when nobody waits for its answer any more.
    async fn send(&self, items: Vec<K::Item>) -> Option<Result<Vec<Result<K::Answer>>>> {
        let mut answer = pin!(timeout(ANSWER_PATIENCE, K::send(&self.line, items)));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Some(answer.unwrap_or_else(|_| Err(too_late()))),
                () = self.committer().abandoned.notified() => {}
            }
            // The notice may have been meant for the batch before.
            if self.committer().inbox.lock().is_abandoned() {
                return None;
            }
        }
    }
}

impl<K: Kind> Drop for Carrier<K> {
    fn drop(&mut self) {
        self.committer().under_way.fetch_sub(1, Ordering::AcqRel);
        let left = if self.ended { Vec::new() } else { self.committer().inbox.lock().abort() };
        for caller in left {
            let _ = caller.send(Err(Error::new(ErrorKind::Unavailable, "the task that carries such calls died")));
        }
    }
}

#[cfg(test)]
mod tests;
