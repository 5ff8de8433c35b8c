//! A lock for the creation of queues, among all processes of a namespace: the *turn*.
//!
//! The lock is a queue that is exclusive to a connection. While it exists, the broker refuses it to all other
//! connections. It is deleted with its connection. Nothing is published to it.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::codec::table::classic;
use crate::limits::NAME;
use crate::transport::asking::close;
use crate::transport::connection::Link;
use crate::transport::failure;

/// First and longest pause between two attempts to take the turn.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// The turn. Dropping it releases it in the background; it also ends with its connection.
pub(crate) struct Turn {
    link: Arc<Link>,
    /// The name of its queue; `None` once it has ended.
    queue: Option<String>,
}

impl Turn {
    /// Waits until no other connection has the turn, and takes it. No other user of this connection may have it.
    ///
    /// # Cancel safety
    /// A dropped call may block the turn until the connection ends. Call it from a task that is not dropped.
    pub(crate) async fn take(link: &Arc<Link>, queue: &str) -> Result<Self> {
        let mut pause = PAUSES.0;
        loop {
            if declare(link, queue).await? {
                return Ok(Self { link: link.clone(), queue: Some(queue.to_owned()) });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Releases the turn.
    pub(crate) async fn end(mut self) {
        if let Some(queue) = self.queue.take() {
            delete(&self.link, &queue).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let link = self.link.clone();
            runtime.spawn(async move { delete(&link, &queue).await });
        }
    }
}

/// Takes the queue; `false` if another connection has it. Uses a separate channel, because the broker closes the
/// channel then.
async fn declare(link: &Link, queue: &str) -> Result<bool> {
    let channel = link.channel().await?;
    meter::round_trip(NAME);
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(queue.into(), options, classic()).await {
        Ok(_) => {
            close(channel).await;
            Ok(true)
        }
        Err(e) if failure::is_locked(&e) => Ok(false),
        Err(e) => Err(failure::failed(&format!("declaring queue `{queue}`"), &e, false)),
    }
}

async fn delete(link: &Link, queue: &str) {
    let Ok(channel) = link.channel().await else { return };
    meter::round_trip(NAME);
    // If this fails, the connection is lost, and the queue with it.
    let _ = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
    close(channel).await;
}
