//! Namespaces within a namespace, for tests and demonstrations. AMQP can't list queues, and a killed process leaves
//! some behind. So `NAME` keeps a record of each namespace within it that may have queues, and the program that uses
//! one holds it.
//!
//! | queue | purpose |
//! |---|---|
//! | `NAME.namespaces` | durable, classic: the records, one message with the name of each namespace within `NAME` |
//! | `NAME.namespaces.turn` | lock: exclusive to the client that reads or changes the records ([`Turn`]) |
//! | `NAME.SUB.held` | exclusive to the connection of the program that uses `NAME.SUB` |
//!
//! 1. A record is written before anything of its namespace is created, and removed after all of the namespace is
//!    removed.
//! 2. Any client may remove a namespace that is not held. It holds the namespace during the removal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::Backoff;
use delayline_core::{Error, ErrorKind, Result, meter};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::RabbitBackend;
use crate::codec::table::classic;
use crate::config::RabbitConfig;
use crate::limits::NAME;
use crate::names::{self, Names};
use crate::topology;
use crate::transport::asking::{look_for_queue, write_name};
use crate::transport::connection::Link;
use crate::transport::{driver, failure};
use crate::turn::Turn;

/// Time limit for holding a namespace again after its connection was lost. A broker that detects the loss releases the
/// namespace much sooner.
const HOLD_AGAIN_MAX: Duration = Duration::from_secs(300);

/// Holds a namespace within a namespace for as long as this value lives.
///
/// Dropping it releases the namespace. Its queues and its record stay; [`RabbitBackend::forget_namespace`] removes
/// them.
pub struct HeldNamespace {
    config: Arc<RabbitConfig>,
    link: Arc<Link>,
    holding: JoinHandle<()>,
}

impl RabbitConfig {
    /// The namespace, `NAME` or `NAME.SUB`.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.namespace
    }

    /// The same configuration, for the namespace `NAME.SUB` within this `NAME`.
    #[must_use]
    pub fn below(&self, sub: &str) -> Self {
        within(self, sub)
    }
}

impl RabbitBackend {
    /// Holds the namespace `NAME.SUB` of the configuration: records it in `NAME`, and marks it as in use. Call it
    /// before [`connect`](Self::connect).
    ///
    /// A separate connection marks the namespace as in use. If it is lost, it is opened again, for up to five minutes.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if another client holds it, [`Config`](ErrorKind::Config) for a namespace that is not
    /// within a namespace, [`Denied`](ErrorKind::Denied), [`Incompatible`](ErrorKind::Incompatible),
    /// [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// A dropped call may have recorded the namespace: then it is listed as not in use.
    pub async fn hold_namespace(config: RabbitConfig) -> Result<HeldNamespace> {
        let held = hold(config).await?;
        let noted = at_turn(&held.config, async |link: &Link| {
            let Some(sub) = names::parts(&held.config.namespace).1 else { return Ok(()) };
            let notes = read(link, &held.config, None).await?;
            if notes.iter().any(|note| note == sub) { Ok(()) } else { note(link, &held.config, sub).await }
        });
        noted.await?;
        Ok(held)
    }

    /// Lists the namespaces within `NAME`, where the configuration's namespace is `NAME` or `NAME.SUB`, and whether
    /// each is in use.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable).
    pub async fn namespaces(config: RabbitConfig) -> Result<Vec<(String, bool)>> {
        config.check()?;
        let config = Arc::new(config);
        let link = Link::asking(config.clone(), "listing");
        let listed = async {
            let mut notes = at_turn(&config, async |link: &Link| read(link, &config, None).await).await?;
            notes.sort_unstable();
            notes.dedup();
            let mut listed = Vec::with_capacity(notes.len());
            for sub in notes {
                let in_use = is_held(&link, &Names::new(&within(&config, &sub).namespace).held()).await?;
                listed.push((sub, in_use));
            }
            Ok(listed)
        };
        let listed = listed.await;
        link.close().await;
        listed
    }

    /// Removes the namespace `sub` within that of the configuration, with everything in it. Use it for a namespace that
    /// a killed process left behind.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if it is in use, [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied),
    /// [`Unavailable`](ErrorKind::Unavailable). A repeated call removes what is left.
    ///
    /// # Cancel safety
    /// A dropped call may have removed a part of the namespace. Repeat it.
    pub async fn forget_namespace(config: RabbitConfig, sub: &str) -> Result<()> {
        config.check()?;
        hold(within(&config, sub)).await?.remove().await
    }
}

impl HeldNamespace {
    /// Removes the namespace with everything in it, and its record, and closes its connection. Close the backends that
    /// use it first.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable). A part of the namespace may be left;
    /// [`RabbitBackend::forget_namespace`] removes it.
    ///
    /// # Cancel safety
    /// A dropped call may leave a part of the namespace, as after an error.
    pub async fn remove(self) -> Result<()> {
        topology::remove(&self.config).await?;
        let (_, sub) = names::parts(&self.config.namespace);
        at_turn(&self.config, async |link: &Link| {
            let left = read(link, &self.config, sub).await?;
            // No other client writes a record while this one has the turn.
            if left.is_empty() { delete(link, &outer(&self.config).namespaces()).await } else { Ok(()) }
        })
        .await?;
        self.holding.abort();
        // On the connection that holds it: the broker allows no other.
        delete(&self.link, &Names::new(&self.config.namespace).held()).await?;
        self.link.close().await;
        Ok(())
    }
}

impl Drop for HeldNamespace {
    fn drop(&mut self) {
        // The connection closes with its last owner.
        self.holding.abort();
    }
}

impl fmt::Debug for HeldNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldNamespace").field("namespace", &self.config.namespace).finish_non_exhaustive()
    }
}

/// The configuration of a namespace within the outer one of this.
fn within(config: &RabbitConfig, sub: &str) -> RabbitConfig {
    let (name, _) = names::parts(&config.namespace);
    config.clone().namespace(format!("{name}.{sub}"))
}

/// The names of the outer namespace.
fn outer(config: &RabbitConfig) -> Names {
    let (name, _) = names::parts(&config.namespace);
    Names::new(name)
}

async fn hold(config: RabbitConfig) -> Result<HeldNamespace> {
    config.check()?;
    if names::parts(&config.namespace).1.is_none() {
        let what =
            format!("namespace `{}` is not within another namespace: use a name such as NAME.SUB", config.namespace);
        return Err(Error::new(ErrorKind::Config, what));
    }
    let config = Arc::new(config);
    let link = Arc::new(Link::asking(config.clone(), "holding"));
    let consumer = declare_held(&link, &config).await?;
    let holding = tokio::spawn(keep(link.clone(), config.clone(), consumer));
    Ok(HeldNamespace { config, link, holding })
}

/// Declares the queue that marks the namespace as in use. Its consumer ends when the queue is lost.
async fn declare_held(link: &Link, config: &RabbitConfig) -> Result<Consumer> {
    let held = Names::new(&config.namespace).held();
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    meter::round_trip(NAME);
    let made = async {
        channel.queue_declare(held.as_str().into(), options, classic()).await?;
        driver::consume(&channel, &held, FieldTable::default()).await
    };
    match timeout(config.response_timeout, made).await {
        Ok(Ok(consumer)) => Ok(consumer),
        Ok(Err(e)) if failure::is_locked(&e) => Err(Error::new(
            ErrorKind::Busy,
            format!("namespace `{}` is in use: another connection holds it", config.namespace),
        )),
        Ok(Err(e)) => Err(failure::failed(&format!("declaring queue `{held}`"), &e, false)),
        Err(_) => Err(failure::silent(&format!("declaring queue `{held}`"), config, false)),
    }
}

/// Holds the namespace again whenever the hold is lost.
async fn keep(link: Arc<Link>, config: Arc<RabbitConfig>, mut consumer: Consumer) {
    loop {
        // Nothing is published to the queue, so this returns when the consumer ends.
        while let Some(Ok(_)) = consumer.next().await {}
        let (mut backoff, ends) = (Backoff::new(), Instant::now() + HOLD_AGAIN_MAX);
        consumer = loop {
            match declare_held(&link, &config).await {
                Ok(consumer) => break consumer,
                Err(e) if e.kind() == ErrorKind::Closed => return,
                // The broker may not have detected the loss of the previous connection yet.
                Err(e) if Instant::now() < ends => {
                    tracing::debug!(namespace = config.namespace, error = %e, "lost the hold, trying again");
                    sleep(backoff.failed()).await;
                }
                Err(e) => {
                    tracing::warn!(namespace = config.namespace, error = %e, "lost the hold, others may remove it");
                    return;
                }
            }
        };
    }
}

/// Works with the records, under the lock.
async fn at_turn<T>(config: &Arc<RabbitConfig>, work: impl AsyncFnOnce(&Link) -> Result<T>) -> Result<T> {
    let link = Arc::new(Link::asking(config.clone(), "noting"));
    let worked = async {
        // If this call is dropped, the connection closes and releases the turn.
        let turn = Turn::take(&link, &outer(config).namespaces_turn()).await?;
        let worked = work(&link).await;
        turn.end().await;
        worked
    };
    let worked = timeout(config.response_timeout * 6, worked).await;
    link.close().await;
    worked.unwrap_or_else(|_| Err(failure::silent("recording a namespace", config, false)))
}

/// Reads the records, and removes those of the name `without`.
async fn read(link: &Link, config: &RabbitConfig, without: Option<&str>) -> Result<Vec<String>> {
    let (channel, queue) = (link.channel().await?, outer(config).namespaces());
    let failed = |e| failure::failed("reading the namespaces' names", &e, false);
    let (mut notes, mut last) = (Vec::new(), None);
    loop {
        meter::round_trip(NAME);
        let got = match channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await {
            Ok(Some(got)) => got,
            Ok(None) => break,
            Err(e) if failure::is_not_found(&e) => return Ok(notes),
            Err(e) => return Err(failed(e)),
        };
        let note = String::from_utf8_lossy(&got.data).into_owned();
        if without == Some(note.as_str()) {
            channel.basic_ack(got.delivery_tag, BasicAckOptions::default()).await.map_err(failed)?;
        } else {
            notes.push(note);
            last = Some(got.delivery_tag);
        }
    }
    if let Some(last) = last {
        let options = BasicNackOptions { multiple: true, requeue: true };
        channel.basic_nack(last, options).await.map_err(failed)?;
    }
    // The answer comes from the queue, which has processed everything before it by then.
    declare(&channel, &queue).await.map_err(failed)?;
    Ok(notes)
}

/// Writes a record. It is on disk when this returns.
async fn note(link: &Link, config: &RabbitConfig, sub: &str) -> Result<()> {
    let (channel, queue) = (link.channel().await?, outer(config).namespaces());
    let doing = "recording a namespace";
    let failed = |e| failure::failed(doing, &e, false);
    declare(&channel, &queue).await.map_err(failed)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
    if write_name(&channel, &queue, sub).await.map_err(failed)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, format!("{doing}: queue `{queue}` did not accept its name")))
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    meter::round_trip(NAME);
    channel.queue_declare(queue.into(), options, classic()).await.map(drop)
}

/// Whether another connection holds the queue.
async fn is_held(link: &Link, queue: &str) -> Result<bool> {
    let channel = link.channel().await?;
    meter::round_trip(NAME);
    match look_for_queue(&channel, queue).await {
        Ok(_) => Ok(true),
        Err(e) if failure::is_locked(&e) => Ok(true),
        Err(e) if failure::is_not_found(&e) => Ok(false),
        Err(e) => Err(failure::failed(&format!("looking for queue `{queue}`"), &e, false)),
    }
}

async fn delete(link: &Link, queue: &str) -> Result<()> {
    let channel = link.channel().await?;
    meter::round_trip(NAME);
    match channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(e) if failure::is_not_found(&e) => Ok(()),
        Err(e) => Err(failure::failed(&format!("deleting queue `{queue}`"), &e, false)),
    }
}
