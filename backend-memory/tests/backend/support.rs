//! A backend, a queue and a subscription in few words.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use delayline_core::{
    Claim, Claimed, ClaimedTask, DelayBackend, Disposition, NewTask, QueueName, Result, Subscription,
    SubscriptionOptions, TaskId, TaskRef,
};
use delayline_memory::MemoryBackend;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn q() -> QueueName {
    QueueName::new("exam").unwrap()
}

pub(crate) fn key(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

pub(crate) async fn open(backend: &MemoryBackend) -> Box<dyn Subscription> {
    backend.subscribe(&q(), SubscriptionOptions::default()).await.unwrap()
}

pub(crate) async fn put(backend: &MemoryBackend, task: NewTask) -> Result<TaskRef> {
    backend.schedule(&q(), vec![task]).await.unwrap().remove(0).map(TaskRef::from)
}

pub(crate) async fn claim(subscription: &mut Box<dyn Subscription>, max: usize) -> Claimed {
    subscription.claim(Claim::new(max, LEASE)).await.unwrap()
}

pub(crate) async fn settle(backend: &MemoryBackend, task: ClaimedTask, disposition: Disposition) -> Result<()> {
    backend.settle(&q(), vec![(task.lease, disposition)]).await.unwrap().remove(0)
}

/// Whether a future is ready when it is polled once.
pub(crate) fn ready<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(out) => Some(out),
        std::task::Poll::Pending => None,
    }
}
