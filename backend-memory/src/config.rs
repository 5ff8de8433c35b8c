//! The configuration of a memory backend, and its capabilities.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Capabilities, Clock, Durability, Error, ErrorKind, LeaseHold, Order, Result, Support, SystemClock,
};

use crate::operations;
use crate::store::DELAY_MAX;

/// Configuration of a [`MemoryBackend`](crate::MemoryBackend): limits and clock.
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
    /// At most 16 million tasks, 4 GiB, 10,000 queues, 100,000 dead letters in each queue and 1 MiB in each payload;
    /// the real clocks.
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
    /// Maximum number of tasks in all queues together, including dead letters. Default: 16 million.
    ///
    /// Beyond it, `schedule` returns [`Full`](ErrorKind::Full).
    #[must_use]
    pub fn max_tasks(mut self, tasks: u64) -> Self {
        self.max_tasks = tasks;
        self
    }

    /// Maximum number of bytes in all queues together. Default: 4 GiB.
    ///
    /// A task counts its payload and 64 bytes. A task with a custom id, a group, headers, an expiry, a payload over 1
    /// KiB or a failed attempt also counts the texts of these and 160 bytes more, and so does every dead letter. Beyond
    /// the limit, `schedule` returns [`Full`](ErrorKind::Full). The texts of failures may exceed the limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Maximum number of queues that hold anything. Default: 10,000.
    #[must_use]
    pub fn max_queues(mut self, queues: usize) -> Self {
        self.max_queues = queues;
        self
    }

    /// Maximum number of dead letters in each queue. Default: 100,000.
    ///
    /// Beyond it, the backend drops the oldest and counts them in `stats`.
    #[must_use]
    pub fn dead_letters_max(mut self, letters: usize) -> Self {
        self.dead_letters_max = letters;
        self
    }

    /// Maximum size of a payload, in bytes. Default: 1 MiB.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Clock, such as [`TestClock`](delayline_core::TestClock). Default: the real clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Seed of the ids that the backend generates: with a seed, they depend only on it and the clock. Default: none.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Parses a URL: `memory:`, or with options such as `memory:?max_tasks=1000&max_bytes=1000000`.
    ///
    /// The options are `max_tasks`, `max_bytes`, `max_queues`, `dead_letters_max` and `payload_bytes_max`, each a whole
    /// number. Each one is documented at the method of the same name.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a malformed URL or an unknown option.
    pub fn from_url(url: &str) -> Result<Self> {
        let bad = |what: String| Err(Error::new(ErrorKind::Config, what));
        let Some(rest) = url.strip_prefix("memory:") else {
            return bad("a memory URL begins with `memory:`".into());
        };
        let mut config = Self::default();
        let options = match rest.split_once('?') {
            None if rest.is_empty() || rest == "//" => return Ok(config),
            Some(("" | "//", options)) => options,
            _ => {
                return bad(
                    "invalid memory URL: use `memory:` or `memory:?option=number&...`, with no host or path".into()
                );
            }
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || {
                value.parse::<u64>().map_err(|_| {
                    let what = format!("option `{name}` of a memory URL takes a whole number");
                    Error::new(ErrorKind::Config, what)
                })
            };
            let size = || number().map(|number| usize::try_from(number).unwrap_or(usize::MAX));
            match name {
                "max_tasks" => config.max_tasks = number()?,
                "max_bytes" => config.max_bytes = number()?,
                "max_queues" => config.max_queues = size()?,
                "dead_letters_max" => config.dead_letters_max = size()?,
                "payload_bytes_max" => config.payload_bytes_max = size()?,
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

    /// The capabilities of a backend with this configuration.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut caps = Capabilities::minimal("memory");
        caps.durability = Durability::Process;
        caps.order = Order::Exact;
        caps.delay_max = DELAY_MAX;
        // The delay of tokio's timer, which counts whole milliseconds and rounds up.
        caps.lateness = Duration::from_millis(2);
        caps.lease_max = Duration::from_secs(24 * 3600);
        caps.lease_hold = LeaseHold::Store;
        caps.payload_bytes_max = self.payload_bytes_max;
        caps.batch_max = 1_000_000;
        // No notification is lost within a process. Tasks that wait for the wall clock are checked every 30 s.
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
            ("memory:?shards=abc", "no option `shards`"),
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
