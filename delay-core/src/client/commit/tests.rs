//! What only shows between two steps of the task; everything else is in `tests/commit.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::carrier::Carrier;
use super::submit::Waiting;
use super::*;
use crate::client::line::{Line, OneTask};
use crate::{
    Capabilities, DelayBackend, Disposition, Due, Error, ErrorKind, Lease, NewTask, QueueName, Result, Scheduled,
    Subscription, SubscriptionOptions,
};

/// A store that never answers.
#[derive(Debug)]
struct Silent(Capabilities);

#[async_trait]
impl DelayBackend for Silent {
    fn capabilities(&self) -> &Capabilities {
        &self.0
    }
    async fn schedule(&self, _: &QueueName, _: Vec<NewTask>) -> Result<Vec<Result<Scheduled>>> {
        std::future::pending().await
    }
    async fn subscribe(&self, _: &QueueName, _: SubscriptionOptions) -> Result<Box<dyn Subscription>> {
        Err(Error::unsupported("subscription"))
    }
    async fn settle(&self, _: &QueueName, _: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        std::future::pending().await
    }
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn line() -> Arc<Line> {
    Arc::new(Line::new(Arc::new(Silent(Capabilities::minimal("silent"))), QueueName::new("q").unwrap()))
}

fn task() -> NewTask {
    NewTask::new(Due::NOW, "")
}

#[tokio::test]
async fn a_task_that_has_ended_leaves_those_who_came_since_to_the_next_one() {
    let line = line();
    let mut ended = Carrier::<OneTask>::new(line.clone());
    assert!(ended.next_batch().is_none());
    // Another thread, between the look into the inbox and the end of the task.
    let mut newcomer = Waiting::<OneTask>::new(&line, task(), &Handle::current()).unwrap();
    drop(ended);
    tokio::task::yield_now().await;
    let answered = std::future::poll_fn(|cx| newcomer.poll(cx)).now_or_never();
    assert!(answered.is_none(), "{answered:?}");
}

#[tokio::test]
async fn a_runtime_that_is_gone_is_an_error_and_no_deadlock() {
    let line = line();
    let gone = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = gone.handle().clone();
    tokio::task::spawn_blocking(move || drop(gone)).await.unwrap();
    let mut waiting = Waiting::<OneTask>::new(&line, task(), &handle).unwrap();
    let e = std::future::poll_fn(|cx| waiting.poll(cx)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(!OneTask::committer(&line).is_any_under_way());
}
