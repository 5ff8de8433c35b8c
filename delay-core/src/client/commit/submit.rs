//! One call: sent alone if no other is under way, otherwise through the inbox.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::consume_budget;
use tokio::time::{Sleep, sleep};

use super::carrier::{ANSWER_PATIENCE, Carrier, empty, too_late};
use super::committer::Committer;
use super::kind::{Kind, Limits, Sending};
use crate::client::answers::only;
#[cfg(delayline_interleaved)]
use crate::faults::{Fault, is_planted};
use crate::{Error, ErrorKind, Result};

/// One call, joined with others if there are any.
///
/// Written by hand: as an `async fn`, it moved its item several times, which took a third of the whole call on a store
/// in memory.
///
/// # Cancel safety
/// A call that is dropped before it was sent is not sent. After that, its outcome is unknown.
pub(crate) struct Submit<'a, K: Kind> {
    way: &'a Arc<K::Way>,
    state: State<'a, K>,
}

enum State<'a, K: Kind> {
    New(K::Item),
    /// Sent alone. Only when it has to wait for its answer does it count as under way and get a deadline: a store that
    /// answers at once never makes others wait, and needs no timer.
    Alone {
        sending: Sending<'a, K::Answer>,
        waits: Option<Waits<'a, K::Item, K::Answer>>,
    },
    Together(Waiting<'a, K>),
    Ended,
}

/// Starts a call.
pub(crate) fn submit<K: Kind>(way: &Arc<K::Way>, item: K::Item) -> Submit<'_, K> {
    Submit { way, state: State::New(item) }
}

impl<K: Kind> Future for Submit<'_, K> {
    type Output = Result<K::Answer>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, State::New(_)) {
            // Without this, a store that answers at once would let a loop of calls monopolize its thread.
            ready!(pin!(consume_budget()).poll(cx));
            this.state = match mem::replace(&mut this.state, State::Ended) {
                State::New(item) => match begin(this.way, item) {
                    Ok(begun) => begun,
                    Err(refused) => return Poll::Ready(Err(refused)),
                },
                other => other,
            };
        }
        let answer = match &mut this.state {
            State::Alone { sending, waits } => match sending.as_mut().poll(cx) {
                Poll::Ready(answer) => answer.and_then(only),
                Poll::Pending => Err(ready!(waits.get_or_insert_with(|| Waits::new(K::committer(this.way))).poll(cx))),
            },
            State::Together(waiting) => ready!(waiting.poll(cx)),
            State::New(_) | State::Ended => return Poll::Pending,
        };
        this.state = State::Ended;
        Poll::Ready(answer)
    }
}

fn begin<K: Kind>(way: &Arc<K::Way>, item: K::Item) -> Result<State<'_, K>> {
    if K::committer(way).is_any_under_way()
        // Without a runtime, nothing could be spawned to empty the inbox.
        && let Ok(runtime) = Handle::try_current()
    {
        return Waiting::new(way, item, &runtime).map(State::Together);
    }
    Ok(State::Alone { sending: K::send(way, vec![item]), waits: None })
}

/// A call that was sent alone and has to wait for its answer.
struct Waits<'a, I, A> {
    _under_way: UnderWay<'a, I, A>,
    /// `None` outside a runtime.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<'a, I, A> Waits<'a, I, A> {
    fn new(committer: &'a Committer<I, A>) -> Self {
        let deadline = Handle::try_current().ok().map(|_| Box::pin(sleep(ANSWER_PATIENCE)));
        Self { _under_way: UnderWay::new(committer), deadline }
    }

    /// Ready once the call took too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| too_late()),
            None => Poll::Pending,
        }
    }
}

/// Counts a call as under way until dropped.
struct UnderWay<'a, I, A>(&'a Committer<I, A>);

impl<'a, I, A> UnderWay<'a, I, A> {
    fn new(committer: &'a Committer<I, A>) -> Self {
        committer.begun();
        Self(committer)
    }
}

impl<I, A> Drop for UnderWay<'_, I, A> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// A caller whose item is in the inbox or was sent from it. If it is dropped, it takes its item out, or reports that it
/// is gone.
pub(super) struct Waiting<'a, K: Kind> {
    committer: &'a Committer<K::Item, K::Answer>,
    number: u64,
    answer: Option<oneshot::Receiver<Result<K::Answer>>>,
}

impl<'a, K: Kind> Waiting<'a, K> {
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if too much waits already.
    pub(super) fn new(way: &'a Arc<K::Way>, item: K::Item, runtime: &Handle) -> Result<Self> {
        let committer = K::committer(way);
        let (sender, receiver) = oneshot::channel();
        let bytes = K::size(&item);
        let limits = K::limits(way);
        let mut inbox = committer.inbox.lock();
        if let Some(waiting) = inbox.too_full_for(bytes, limits.bytes_max) {
            drop(inbox);
            return Err(busy(&limits, waiting, bytes));
        }
        let (number, is_first) = inbox.push(item, bytes, sender);
        drop(inbox);
        if is_first {
            // Not under the lock: a runtime that has shut down drops the task immediately.
            runtime.spawn(empty(Carrier::<K>::new(way.clone())));
        }
        Ok(Self { committer, number, answer: Some(receiver) })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<K::Answer>> {
        let Some(receiver) = &mut self.answer else { return Poll::Pending };
        let answer = ready!(Pin::new(receiver).poll(cx));
        self.answer = None;
        let died = |_| Err(Error::new(ErrorKind::Ambiguous, "the task that sent this joined call died"));
        Poll::Ready(answer.unwrap_or_else(died))
    }
}

fn busy(limits: &Limits<'_>, waiting: usize, bytes: usize) -> Error {
    let Limits { queue, bytes_max: max, .. } = limits;
    let what = format!(
        "{waiting} bytes of calls to `{queue}` wait for the store, and this call has {bytes}; `joined_bytes_max` is {max}: \
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
            // Not under the lock: the item may be large.
            drop(item);
        }
    }
}
