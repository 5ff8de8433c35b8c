//! An open backend: the parts that its subscriptions and gates share.

use std::sync::Arc;

use delayline_backend_kit::{Ids, Lifecycle};
use delayline_core::Capabilities;
use tokio::sync::Mutex;

use crate::config::{self, RabbitConfig};
use crate::counters::Counters;
use crate::limits::TITLE;
use crate::names::Names;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::topology::Topology;
use crate::transport::connection::Link;
use crate::transport::publisher::Publisher;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) config: Arc<RabbitConfig>,
    pub(crate) caps: Capabilities,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) names: Names,
    pub(crate) time: Time,
    pub(crate) ids: Ids,
    pub(crate) counters: Counters,
    /// A unique number of this backend, for its leases.
    pub(crate) instance: u64,
    /// The connection for consuming, acknowledging and the topology.
    pub(crate) consuming: Arc<Link>,
    /// The connection for publishing. A broker that is short of memory or disk stops reading from it.
    pub(crate) publishing: Arc<Link>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) outbox: Outbox,
    /// Held while dead letters are read.
    pub(crate) reading: Mutex<()>,
}

impl Store {
    pub(crate) fn new(config: RabbitConfig) -> Self {
        let config = Arc::new(config);
        let names = Names::new(&config.namespace);
        let consuming = Arc::new(Link::new(config.clone(), "consuming"));
        let publishing = Arc::new(Link::new(config.clone(), "publishing"));
        let topology = Arc::new(Topology::new(config.clone(), consuming.clone(), publishing.clone()));
        let publisher = Publisher::new(config.clone(), publishing.clone());
        let ids = Ids::new();
        let first_slot = ids.number() as u64;
        Self {
            caps: config::capabilities(&config),
            time: Time::default(),
            lifecycle: Lifecycle::new(TITLE),
            outbox: Outbox::new(config.clone(), names.clone(), topology.clone(), publisher, first_slot),
            instance: ids.number() as u64,
            ids,
            counters: Counters::default(),
            config,
            names,
            consuming,
            publishing,
            topology,
            reading: Mutex::default(),
        }
    }
}
