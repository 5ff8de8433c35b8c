//! Namespaces within a namespace, for tests and demonstrations. `NAME` keeps a note of each as long as it may have queues,
//! because AMQP can't list queues, and a killed process leaves some. The program that uses one shows a sign of life.
//!
//! | queue | what it is |
//! |---|---|
//! | `NAME.namespaces` | durable, classic: the name of each one within `NAME`, one message each |
//! | `NAME.namespaces.turn` | exclusive to the client that reads or changes the notes ([`Turn`]) |
//! | `NAME.SUB.held` | exclusive to the connection of the program that uses `NAME.SUB` |
//!
//! 1. A note is written before anything of its namespace is made, and removed after all of it is removed.
//! 2. Any client may remove a namespace that is not held; it holds the namespace meanwhile.

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

/// How long a namespace is tried to be held again whose connection was lost. A broker that found a client gone has let go of it
/// much sooner.
const HOLD_AGAIN_MAX: Duration = Duration::from_secs(300);

/// A namespace within another, for as long as this value lives.
///
/// Dropped, it is not held any more, and its queues and its note stay: [`RabbitBackend::forget_namespace`] removes them.
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

    /// The same broker, with the namespace `NAME.SUB` of this `NAME`.
    #[must_use]
    pub fn below(&self, sub: &str) -> Self {
        within(self, sub)
    }
}

impl RabbitBackend {
    /// Holds the namespace `NAME.SUB` of the configuration: notes it in `NAME`, and shows others that it is in use. Call it
    /// before [`connect`](Self::connect).
    ///
    /// A connection of its own shows that; it is opened again where it was lost, for up to five minutes.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if somebody else holds it, [`Config`](ErrorKind::Config) for a namespace that is not
    /// within another, [`Denied`](ErrorKind::Denied), [`Incompatible`](ErrorKind::Incompatible),
    /// [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Dropped, it may have been noted: it is listed as not in use then.
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

    /// The namespaces within that of the configuration, or within the one that it is in itself, and whether each is in use.
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

    /// Removes the namespace `sub` within that of the configuration, with all that is in it: what a process left that was
    /// killed.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if it is in use, [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied),
    /// [`Unavailable`](ErrorKind::Unavailable). Repeated, it goes on with what is left.
    ///
    /// # Cancel safety
    /// Dropped, a part of it may have been removed; repeat it.
    pub async fn forget_namespace(config: RabbitConfig, sub: &str) -> Result<()> {
        config.check()?;
        hold(within(&config, sub)).await?.remove().await
    }
}

impl HeldNamespace {
    /// Removes the namespace with all that is in it, and its note, and ends its connection. Close what uses it before.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable): a part may be left, which
    /// [`RabbitBackend::forget_namespace`] removes.
    ///
    /// # Cancel safety
    /// As an error.
    pub async fn remove(self) -> Result<()> {
        topology::remove(&self.config).await?;
        let (_, sub) = names::parts(&self.config.namespace);
        at_turn(&self.config, async |link: &Link| {
            let left = read(link, &self.config, sub).await?;
            // Nobody writes another one while this has the turn.
            if left.is_empty() { delete(link, &outer(&self.config).namespaces()).await } else { Ok(()) }
        })
        .await?;
        self.holding.abort();
        // By the connection that has it: no other may.
        delete(&self.link, &Names::new(&self.config.namespace).held()).await?;
        self.link.close().await;
        Ok(())
    }
}

impl Drop for HeldNamespace {
    fn drop(&mut self) {
        // The connection ends with the last who has it.
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
        let what = format!("`{}` is not within another namespace: such a name is NAME.SUB", config.namespace);
        return Err(Error::new(ErrorKind::Config, what));
    }
    let config = Arc::new(config);
    let link = Arc::new(Link::asking(config.clone(), "holding"));
    let consumer = declare_held(&link, &config).await?;
    let holding = tokio::spawn(keep(link.clone(), config.clone(), consumer));
    Ok(HeldNamespace { config, link, holding })
}

/// Makes the queue that shows that somebody is there. What consumes it ends when it is lost.
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
        Ok(Err(e)) if failure::is_locked(&e) => {
            Err(Error::new(ErrorKind::Busy, format!("namespace `{}` is in use", config.namespace)))
        }
        Ok(Err(e)) => Err(failure::failed(&format!("declaring queue `{held}`"), &e, false)),
        Err(_) => Err(failure::silent(&format!("declaring queue `{held}`"), config, false)),
    }
}

/// Holds it again whenever it is lost.
async fn keep(link: Arc<Link>, config: Arc<RabbitConfig>, mut consumer: Consumer) {
    loop {
        // Nothing is published to it; what ends is the consumer.
        while let Some(Ok(_)) = consumer.next().await {}
        let (mut backoff, ends) = (Backoff::new(), Instant::now() + HOLD_AGAIN_MAX);
        consumer = loop {
            match declare_held(&link, &config).await {
                Ok(consumer) => break consumer,
                Err(e) if e.kind() == ErrorKind::Closed => return,
                // The broker may not know yet that the former connection is gone.
                Err(e) if Instant::now() < ends => {
                    tracing::debug!(namespace = config.namespace, error = %e, "it is not held for a moment");
                    sleep(backoff.failed()).await;
                }
                Err(e) => {
                    tracing::warn!(namespace = config.namespace, error = %e, "it is not held any more");
                    return;
                }
            }
        };
    }
}

/// Does something with the notes, while nobody else does.
async fn at_turn<T>(config: &Arc<RabbitConfig>, work: impl AsyncFnOnce(&Link) -> Result<T>) -> Result<T> {
    let link = Arc::new(Link::asking(config.clone(), "noting"));
    let worked = async {
        // Whoever is cut short here gives the turn away with the connection.
        let turn = Turn::take(&link, &outer(config).namespaces_turn()).await?;
        let worked = work(&link).await;
        turn.end().await;
        worked
    };
    let worked = timeout(config.response_timeout * 6, worked).await;
    link.close().await;
    worked.unwrap_or_else(|_| Err(failure::silent("noting a namespace", config, false)))
}

/// The notes, all of which stay but those of one name.
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
    // Its answer comes from the queue, which has done all that by then.
    declare(&channel, &queue).await.map_err(failed)?;
    Ok(notes)
}

/// Writes a note, which is on disk when this is done.
async fn note(link: &Link, config: &RabbitConfig, sub: &str) -> Result<()> {
    let (channel, queue) = (link.channel().await?, outer(config).namespaces());
    let doing = "noting a namespace";
    let failed = |e| failure::failed(doing, &e, false);
    declare(&channel, &queue).await.map_err(failed)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
    if write_name(&channel, &queue, sub).await.map_err(failed)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, format!("{doing}: `{queue}` did not take it")))
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    meter::round_trip(NAME);
    channel.queue_declare(queue.into(), options, classic()).await.map(drop)
}

/// Whether another connection has it.
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
