//! The state that the parts of `work` share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use delayline::{Capabilities, DelayBackend, Lease};

use super::args::WorkArgs;
use super::gate::Gate;
use crate::console::Console;
use crate::signal::Stop;
use crate::tally::Tally;

/// A `work` command in progress.
pub(crate) struct Work {
    pub(super) args: WorkArgs,
    pub(super) gate: Arc<Gate>,
    pub(super) tally: Arc<Tally>,
    pub(super) console: Arc<Console>,
    pub(super) stop: Stop,
    pub(super) given_back: AtomicU64,
}

impl Work {
    pub(super) fn gate_capabilities(&self) -> &Capabilities {
        self.gate.capabilities()
    }

    /// Renews leases for their full duration from now. A lost lease is noticed when its task is settled.
    pub(super) async fn extend(&self, leases: Vec<Lease>) -> delayline::Result<()> {
        self.gate.extend(&self.args.queue, leases, self.args.lease).await.map(drop)
    }

    pub(super) fn given_back(&self, tasks: u64) {
        self.given_back.fetch_add(tasks, Ordering::Relaxed);
    }
}
