//! How a memory backend is set up, and what it can do then.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Capabilities, Clock, Durability, Error, ErrorKind, LeaseHold, Order, Result, Support, SystemClock,
};

use crate::operations;
use crate::store::DELAY_MAX;

/// Limits and clock of a [`MemoryBackend`](crate::MemoryBackend).
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    pub(crate) max_tasks: u64,
    pub(crate) max_bytes: u64,
    pub(crate) max_queues: usize,
    pub(crate) dead_letters_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Option<u64>,
}

impl Default for MemoryConfig {
    /// 16 million tasks, 4 GiB, 10,000 queues, 100,000 dead letters a queue, 1 MiB a payload, the real clocks.
    fn default() -> Self {
        Self {
            max_tasks: 16_000_000,
            max_bytes: 4 << 30,
            max_queues: 10_000,
            dead_letters_max: 100_000,
            payload_bytes_max: 1 << 20,
            clock: Arc::new(SystemClock::new()),
            seed: None,
        }
    }
}

impl MemoryConfig {
    /// The most tasks in all queues together, dead letters included; beyond it `schedule` answers `Full`.
    #[must_use]
    pub fn max_tasks(mut self, tasks: u64) -> Self {
        self.max_tasks = tasks;
        self
    }

    /// The most bytes in all queues together: payloads, 64 for each task, and for one with a key of its own, a group,
    /// headers, an expiry, a payload over 1 KiB or a failed attempt, those texts and 160 more, as for each dead letter. The
    /// texts of failures may go beyond it.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The most queues that hold anything.
    #[must_use]
    pub fn max_queues(mut self, queues: usize) -> Self {
        self.max_queues = queues;
        self
    }

    /// The most dead letters in a queue; beyond it the oldest are dropped, and counted in `stats`.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: usize) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// The largest payload, in bytes.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Another clock, such as [`TestClock`](delayline_core::TestClock).
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the ids it gives depend on this number and the clock alone.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Reads a URL: `memory:`, or with options such as `memory:?max_tasks=1000&max_bytes=1000000`. The options are
    /// `max_tasks`, `max_bytes`, `max_queues`, `dead_letters_max` and `payload_bytes_max`, each a whole number.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for anything else.
    pub fn from_url(url: &str) -> Result<Self> {
        let bad = |what: String| Err(Error::new(ErrorKind::Config, what));
        let Some(rest) = url.strip_prefix("memory:") else {
            return bad("a memory URL begins with `memory:`".into());
        };
        let mut config = Self::default();
        let options = match rest.split_once('?') {
            None if rest.is_empty() || rest == "//" => return Ok(config),
            Some(("" | "//", options)) => options,
            _ => return bad("a memory URL is `memory:` or `memory:?option=number&...`; it has no host or path".into()),
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let Ok(number) = value.parse::<u64>() else {
                return bad(format!("option `{name}` of a memory URL takes a whole number"));
            };
            let size = usize::try_from(number).unwrap_or(usize::MAX);
            match name {
                "max_tasks" => config.max_tasks = number,
                "max_bytes" => config.max_bytes = number,
                "max_queues" => config.max_queues = size,
                "dead_letters_max" => config.dead_letters_max = size,
                "payload_bytes_max" => config.payload_bytes_max = size,
                _ => {
                    return bad(format!(
                        "a memory URL has no option `{name}`; there are max_tasks, max_bytes, max_queues, \
                         dead_letters_max and payload_bytes_max"
                    ));
                }
            }
        }
        Ok(config)
    }

    /// What a backend with these limits can do.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut caps = Capabilities::minimal("memory");
        caps.durability = Durability::Process;
        caps.order = Order::Exact;
        caps.delay_max = DELAY_MAX;
        // What tokio's timer adds: it counts whole milliseconds and rounds up.
        caps.lateness = Duration::from_millis(2);
        caps.lease_max = Duration::from_secs(24 * 3600);
        caps.lease_hold = LeaseHold::Store;
        caps.payload_bytes_max = self.payload_bytes_max;
        caps.batch_max = 1_000_000;
        // No notification is ever lost within a process; tasks that wait for the wall clock are looked at every 30 s.
        caps.fallback_poll_interval = Duration::from_secs(3600);
        caps.operation_window = operations::WINDOW;
        caps.extend = Support::Definite;
        caps.cancel = Support::Definite;
        caps.reschedule = Support::Definite;
        caps.groups = Support::Definite;
        caps.replace = Support::Definite;
        caps.unique_ids = Support::Definite;
        caps.inspect = Support::Definite;
        caps.dead_letters = Support::Definite;
        caps.pause = Support::Definite;
        caps.delete = Support::Definite;
        caps.stats = Support::Definite;
        caps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        assert!(MemoryConfig::from_url("memory:").is_ok());
        assert!(MemoryConfig::from_url("memory://").is_ok());
        let config = MemoryConfig::from_url("memory:?max_tasks=10&payload_bytes_max=7").unwrap();
        assert_eq!((config.max_tasks, config.payload_bytes_max), (10, 7));
        for (url, says) in [
            ("memory:?max_task=10", "no option `max_task`"),
            ("memory:?max_tasks=ten", "whole number"),
            ("memory:?max_tasks", "whole number"),
            ("memory://localhost", "no host or path"),
            ("redis:", "begins with"),
        ] {
            let e = MemoryConfig::from_url(url).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains(says), "{url}: {e}");
        }
    }
}
