//! Defects of LEAK and CLOSE: what nobody gives back, and a close that never ends.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{
    Action, Bytes, Change, ChangeOutcome, Changed, Page, QueueName, Result, Select, TaskRef, TaskState,
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::defect::{Defect, Inner, Opened};

/// Each wait registers a listener that nothing removes.
#[derive(Default)]
pub(super) struct ListenerLeak {
    listeners: Mutex<Vec<Arc<Listener>>>,
}

struct Listener {
    _queue: QueueName,
    _subscription: u64,
}

#[async_trait]
impl Defect for ListenerLeak {
    async fn wait(&self, _: &Inner, subscription: &mut Opened, at_most: Duration) {
        self.listeners
            .lock()
            .push(Arc::new(Listener { _queue: subscription.queue.clone(), _subscription: subscription.number }));
        subscription.wait(at_most).await;
    }
}

/// Each subscription that is opened leaves a task of the runtime, until the backend is closed.
#[derive(Default)]
pub(super) struct TaskForEachSubscription {
    left: Mutex<Vec<AbortHandle>>,
}

#[async_trait]
impl Defect for TaskForEachSubscription {
    async fn opened(&self, _: &Inner, subscription: Opened) -> Result<Opened> {
        self.left.lock().push(tokio::spawn(pending::<()>()).abort_handle());
        Ok(subscription)
    }

    async fn close(&self, inner: &Inner) -> Result<()> {
        self.left.lock().drain(..).for_each(|task| task.abort());
        inner.close().await
    }
}

/// What a cancelled task carried is kept.
#[derive(Default)]
pub(super) struct CancelledKept {
    payloads: Mutex<Vec<Bytes>>,
}

#[async_trait]
impl Defect for CancelledKept {
    async fn change(&self, inner: &Inner, queue: &QueueName, select: Select, change: Change) -> Result<Changed> {
        let mut payloads = match (&select, change.action) {
            (Select::Tasks(tasks), Action::Cancel) => of_tasks(inner, queue, tasks).await?,
            (Select::Group(_), Action::Cancel) => of_group(inner, queue, &select).await?,
            (_, Action::MoveTo(_) | Action::Shift(_)) => Vec::new(),
            _ => unreachable!("one that the suite does not know"),
        };
        let changed = inner.change(queue, select, change).await?;
        for (payload, outcome) in payloads.iter_mut().zip(&changed.outcomes) {
            if !matches!(outcome, Ok(ChangeOutcome::Changed)) {
                *payload = None;
            }
        }
        // A copy of its own, so that it takes what the task took.
        let kept = payloads.into_iter().flatten().map(|payload| Bytes::copy_from_slice(&payload));
        self.payloads.lock().extend(kept);
        Ok(changed)
    }
}

async fn of_tasks(inner: &Inner, queue: &QueueName, tasks: &[TaskRef]) -> Result<Vec<Option<Bytes>>> {
    let mut payloads = Vec::with_capacity(tasks.len());
    for task in tasks {
        payloads.push(inner.find(queue, &task.id).await?.map(|view| view.payload));
    }
    Ok(payloads)
}

async fn of_group(inner: &Inner, queue: &QueueName, group: &Select) -> Result<Vec<Option<Bytes>>> {
    let is_member = |of: &Option<delayline_core::GroupName>| match group {
        Select::Group(group) => of.as_ref() == Some(group),
        Select::Tasks(_) => false,
        _ => unreachable!("one that the suite does not know"),
    };
    let mut payloads = Vec::new();
    let mut page = Page::first(1_000);
    loop {
        let tasks = inner.list(queue, page).await?;
        let Some(last) = tasks.last() else { return Ok(payloads) };
        page = Page::after(last, 1_000);
        let waiting = tasks.iter().filter(|view| is_member(&view.group) && view.state == TaskState::Pending);
        payloads.extend(waiting.map(|view| Some(view.payload.clone())));
    }
}

/// `close` waits for the subscriptions that are open, before it tells them.
#[derive(Default)]
pub(super) struct EndlessClose {
    open: AtomicU64,
}

#[async_trait]
impl Defect for EndlessClose {
    async fn opened(&self, _: &Inner, subscription: Opened) -> Result<Opened> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(subscription)
    }

    fn ended(&self, _: &Inner, _: &mut Opened) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn close(&self, inner: &Inner) -> Result<()> {
        if self.open.load(Ordering::Relaxed) > 0 {
            // As good as for ever, and an end for who waits without a limit on a clock that does not wait.
            tokio::time::sleep(Duration::from_secs(365 * 86_400)).await;
        }
        inner.close().await
    }
}

/// `close` leaves a task of the runtime behind.
#[derive(Default)]
pub(super) struct TaskAfterClose;

#[async_trait]
impl Defect for TaskAfterClose {
    async fn close(&self, inner: &Inner) -> Result<()> {
        inner.close().await?;
        tokio::spawn(pending::<()>());
        Ok(())
    }
}
