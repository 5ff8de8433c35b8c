//! The queues and exchanges: declares missing ones, checks existing ones, and removes a namespace on demand.
//!
//! The last object that is declared, for a namespace and for each logical queue, is its *mark*: an exchange that
//! nothing is published to. A client that finds the mark declares only what checks that its configuration is the same.
//! If an operator has deleted something, the client declares everything again as soon as it notices. That changes
//! nothing for existing objects.
//!
//! Requests that the broker may refuse use a separate, temporary connection. A refusal closes the channel, and the
//! driver (lapin 4.12) does not open a channel with that number again. On a permanent connection, the numbers would run
//! out some day, and the connection would end, with all its leases.
//!
//! One client at a time declares what is missing ([`Turn`]). A broker shows a quorum queue to others before it serves
//! it, and RabbitMQ 3.10 closes the connection of a client that uses the queue too early.

mod again;
mod declare;
mod layout;
mod remove;

use std::collections::HashSet;
use std::sync::Arc;

use delayline_core::{QueueName, Result, owned};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::again::repeated;
use self::layout::Layout;
use self::remove::remove_once;
use crate::config::RabbitConfig;
use crate::transport::connection::Link;
use crate::transport::failure;

#[derive(Debug)]
pub(crate) struct Topology {
    config: Arc<RabbitConfig>,
    layout: Layout,
    /// What is known to exist. Locked during declarations, so that all callers wait for the same attempt.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    base: bool,
    queues: HashSet<QueueName>,
    /// Whether something of the base or of these queues may be missing in spite of the marks.
    base_is_doubted: bool,
    doubted: HashSet<QueueName>,
}

impl Topology {
    pub(crate) fn new(config: Arc<RabbitConfig>, link: Arc<Link>, publishing: Arc<Link>) -> Self {
        Self { layout: Layout::new(config.clone(), link, publishing), config, known: Mutex::default() }
    }

    /// Makes sure that everything that a queue needs exists.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    pub(crate) async fn ensure(self: &Arc<Self>, queue: &QueueName) -> Result<()> {
        self.base().await?;
        self.queue(queue).await
    }

    /// Makes sure that the shared topology of the namespace exists: the levels and the queues for strays.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), which names the queue and the argument that differs;
    /// [`Denied`](ErrorKind::Denied), which names the permission; [`Unavailable`](ErrorKind::Unavailable).
    pub(crate) async fn base(self: &Arc<Self>) -> Result<()> {
        if self.known.lock().await.base {
            return Ok(());
        }
        let this = self.clone();
        // In a separate task, so that it goes on if the first caller is dropped.
        let made = async move {
            let mut known = this.known.lock().await;
            if !known.base {
                let is_doubted = known.base_is_doubted;
                this.bounded(|| this.layout.declare_base(is_doubted)).await?;
                known.base = true;
                known.base_is_doubted = false;
            }
            Ok(())
        };
        owned(made, |()| async {}).await
    }

    /// Makes sure that a logical queue exists: its gate, ready queue and dead letters.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    async fn queue(self: &Arc<Self>, queue: &QueueName) -> Result<()> {
        if self.known.lock().await.queues.contains(queue) {
            return Ok(());
        }
        let (this, queue) = (self.clone(), queue.clone());
        // In a separate task, too.
        let made = async move {
            let mut known = this.known.lock().await;
            if !known.queues.contains(&queue) {
                let is_doubted = known.doubted.contains(&queue);
                this.bounded(|| this.layout.declare_queue(&queue, is_doubted)).await?;
                known.doubted.remove(&queue);
                known.queues.insert(queue);
            }
            Ok(())
        };
        owned(made, |()| async {}).await
    }

    /// Writes a queue's name to the registry again, after a policy removed it.
    ///
    /// # Errors
    /// [`Denied`](delayline_core::ErrorKind::Denied), [`Unavailable`](delayline_core::ErrorKind::Unavailable).
    pub(crate) async fn register(&self, queue: &QueueName) -> Result<()> {
        self.layout.register(queue).await
    }

    /// After something was missing: makes the next callers check and declare everything again.
    pub(crate) async fn forget(&self) {
        let mut known = self.known.lock().await;
        known.base = false;
        known.base_is_doubted = true;
        let queues = std::mem::take(&mut known.queues);
        known.doubted.extend(queues);
    }

    async fn bounded<T, F: Future<Output = Result<T>>>(&self, work: impl Fn() -> F) -> Result<T> {
        // There are many requests, each of them quick. The first declaration of a hundred queues takes a broker a
        // while.
        match timeout(self.config.response_timeout * 6, repeated(work)).await {
            Ok(done) => done,
            Err(_) => Err(failure::silent("declaring the queues", &self.config, false)),
        }
    }
}

/// Removes every queue and exchange of the configuration's namespace, with their contents.
///
/// Clients that use the namespace at that moment may declare parts of it again.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
/// [`Unavailable`](delayline_core::ErrorKind::Unavailable). A repeated call removes what is left.
///
/// # Cancel safety
/// A dropped call may have removed a part of the namespace. Repeat it.
pub(crate) async fn remove(config: &Arc<RabbitConfig>) -> Result<()> {
    repeated(|| async {
        let link = Link::asking(config.clone(), "removing");
        let removed = remove_once(config, &link).await;
        link.close().await;
        removed
    })
    .await
}
