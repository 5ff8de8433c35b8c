//! The queues and exchanges: made where they are missing, checked where they are there, removed on demand.
//!
//! What is made last, of a namespace and of each logical queue, is an exchange that nothing is published to, its *mark*. A
//! client that finds the mark declares nothing beyond what shows that its configuration is the same. What an operator has
//! deleted since is made again when it is found missing: then all is declared, which changes nothing where it is there.
//!
//! What the broker may refuse is asked on a connection of its own, for that time: a refusal ends the channel, and the
//! driver (lapin 4.12) never opens one of that number again. On a connection that stays, the numbers would be used up some
//! day, and with it would go all leases that it has.
//!
//! What is missing is made by one at a time ([`Turn`]): a broker shows a quorum queue to others before it serves it, and
//! RabbitMQ 3.10 ends the connection of a client that uses it then.

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
    /// What is known to be there. Held while declaring, so that all who need it wait for one attempt.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    base: bool,
    queues: HashSet<QueueName>,
    /// Something of the base, or of these queues, may be missing, whatever the marks say.
    base_is_doubted: bool,
    doubted: HashSet<QueueName>,
}

impl Topology {
    pub(crate) fn new(config: Arc<RabbitConfig>, link: Arc<Link>, publishing: Arc<Link>) -> Self {
        Self { layout: Layout::new(config.clone(), link, publishing), config, known: Mutex::default() }
    }

    /// Makes sure of everything that a queue needs.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    pub(crate) async fn ensure(self: &Arc<Self>, queue: &QueueName) -> Result<()> {
        self.base().await?;
        self.queue(queue).await
    }

    /// Makes sure of what all queues of the namespace share: the levels, and where strays go.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) naming the queue and the argument that is not as ours, [`Denied`](ErrorKind::Denied)
    /// naming the permission, [`Unavailable`](ErrorKind::Unavailable).
    pub(crate) async fn base(self: &Arc<Self>) -> Result<()> {
        if self.known.lock().await.base {
            return Ok(());
        }
        let this = self.clone();
        // Not to be cut short by whoever needs it first.
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

    /// Makes sure of a logical queue: its gate, ready queue and dead letters.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    async fn queue(self: &Arc<Self>, queue: &QueueName) -> Result<()> {
        if self.known.lock().await.queues.contains(queue) {
            return Ok(());
        }
        let (this, queue) = (self.clone(), queue.clone());
        // Likewise.
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

    /// Notes a queue's name in the registry again, which a policy took from it.
    ///
    /// # Errors
    /// [`Denied`](delayline_core::ErrorKind::Denied), [`Unavailable`](delayline_core::ErrorKind::Unavailable).
    pub(crate) async fn register(&self, queue: &QueueName) -> Result<()> {
        self.layout.register(queue).await
    }

    /// Something was missing: all of it is made sure of again when it is needed next.
    pub(crate) async fn forget(&self) {
        let mut known = self.known.lock().await;
        known.base = false;
        known.base_is_doubted = true;
        let queues = std::mem::take(&mut known.queues);
        known.doubted.extend(queues);
    }

    async fn bounded<T, F: Future<Output = Result<T>>>(&self, work: impl Fn() -> F) -> Result<T> {
        // Many requests, each of them quick; a broker that makes a hundred queues for the first time takes a while.
        match timeout(self.config.response_timeout * 6, repeated(work)).await {
            Ok(done) => done,
            Err(_) => Err(failure::silent("making the queues", &self.config, false)),
        }
    }
}

/// Removes every queue and exchange of the configuration's namespace, with all that is in them.
///
/// Whoever uses the namespace at that moment may make some of it again.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config), [`Denied`](delayline_core::ErrorKind::Denied),
/// [`Unavailable`](delayline_core::ErrorKind::Unavailable). Repeated, it goes on with what is left.
///
/// # Cancel safety
/// Dropped, a part of it may have been removed; repeat it.
pub(crate) async fn remove(config: &Arc<RabbitConfig>) -> Result<()> {
    repeated(|| async {
        let link = Link::asking(config.clone(), "removing");
        let removed = remove_once(config, &link).await;
        link.close().await;
        removed
    })
    .await
}
