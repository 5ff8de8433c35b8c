//! What every part of a run shares.

use std::sync::Arc;

use delayline::{DelayBackend, QueueName};

use super::ids::Ids;
use crate::console::Console;
use crate::signal::Stop;
use crate::tally::Tally;

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) backend: Arc<dyn DelayBackend>,
    pub(super) queue: QueueName,
    pub(super) tally: Arc<Tally>,
    pub(super) console: Arc<Console>,
    pub(super) stop: Stop,
    /// Where what is left is to be saved, and would be lost.
    pub(super) to_be_saved: Option<Ids>,
}
