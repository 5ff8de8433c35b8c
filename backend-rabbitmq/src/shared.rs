//! An open backend: its parts, which its intakes and gates have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use delayline_core::{Capabilities, Error, ErrorKind, Result};
use tokio::sync::{Mutex, watch};

use crate::codec::ids::Ids;
use crate::config::{self, RabbitConfig};
use crate::names::Names;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::topology::Topology;
use crate::transport::connection::Link;
use crate::transport::publisher::Publisher;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<RabbitConfig>,
    pub(crate) caps: Capabilities,
    pub(crate) names: Names,
    pub(crate) time: Time,
    pub(crate) ids: Ids,
    /// For what is consumed and acknowledged, and for the topology.
    pub(crate) consuming: Arc<Link>,
    /// For what is published: a broker short of memory or disk stops reading from it.
    pub(crate) publishing: Arc<Link>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) outbox: Outbox,
    /// Held by who reads dead letters.
    pub(crate) reading: Mutex<()>,
    closed: AtomicBool,
    /// Turns true when the backend is closed, for those who wait.
    closing: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(config: RabbitConfig) -> Self {
        let config = Arc::new(config);
        let names = Names::new(&config.name_space);
        let consuming = Arc::new(Link::new(config.clone(), "consuming"));
        let publishing = Arc::new(Link::new(config.clone(), "publishing"));
        let topology = Arc::new(Topology::new(config.clone(), consuming.clone(), publishing.clone()));
        let publisher = Publisher::new(config.clone(), publishing.clone());
        Self {
            caps: config::capabilities(&config),
            time: Time::default(),
            ids: Ids::new(),
            outbox: Outbox::new(config.clone(), names.clone(), topology.clone(), publisher),
            config,
            names,
            consuming,
            publishing,
            topology,
            reading: Mutex::default(),
            closed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        }
    }

    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after `close`.
    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the RabbitMQ backend was closed"));
        }
        Ok(())
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.send_replace(true);
    }

    /// Tells when the backend is closed.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}
