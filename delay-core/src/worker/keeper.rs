//! Renews the leases of running handlers: one task for each queue, which sleeps while no handler runs.
//!
//! A lease is extended when a third of it has passed, in one call together with all others that are almost due for it.
//! A failed extension is retried until the lease ends by this process's own clock. The handler is then told that the
//! lease is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::context::InFlight;
use super::registry::{Key, Registry};
use crate::client::answers::spread;
use crate::client::line::Line;
use crate::{Error, ErrorKind, Lease, Result};

pub(super) struct Keeper {
    pub(super) line: Arc<Line>,
    pub(super) registry: Arc<Registry>,
    /// Lease duration.
    pub(super) lease: Duration,
}

/// A lease to be extended.
type Extend = (Key, Arc<InFlight>, Lease);

/// What to do about the leases, and when.
struct Needs {
    /// Leases to extend now.
    extend: Vec<Extend>,
    /// When the next lease is to be extended.
    next: Option<Instant>,
    /// When the first lease ends that is not lost already.
    first_end: Option<Instant>,
}

impl Keeper {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        // Set after an extension that failed; has no effect before that.
        let mut not_before = Instant::now();
        // Cleared when the backend answers that it does not support extensions.
        let mut can_extend = true;
        loop {
            let now = Instant::now();
            let needs = self.needs(now, can_extend);
            let Some(first_end) = needs.first_end else {
                self.registry.came_in.notified().await;
                continue;
            };
            if needs.extend.is_empty() || now < not_before {
                let wake_at = if needs.extend.is_empty() { needs.next } else { Some(not_before) };
                sleep_until(wake_at.map_or(first_end, |at| at.min(first_end))).await;
                continue;
            }
            // At most until the first lease ends, so that a call that hangs does not hide that end.
            match timeout_at(first_end, self.extend(needs.extend)).await {
                Ok(Extended { repeat: false, .. }) => {}
                Ok(Extended { unsupported: true, .. }) => can_extend = false,
                Ok(_) | Err(_) => not_before = Instant::now() + self.pause(),
            }
        }
    }

    /// Finds what the leases need, and tells the handlers whose leases have ended.
    fn needs(&self, now: Instant, can_extend: bool) -> Needs {
        let mut needs = Needs { extend: Vec::new(), next: None, first_end: None };
        let soon = now + self.lease / 10;
        let (mut due, mut lost) = (false, Vec::new());
        self.registry.for_each(|key, in_flight| {
            if in_flight.is_lost() {
                return;
            }
            let current = in_flight.lease.lock();
            if current.ends <= now {
                lost.push(in_flight.clone());
                return;
            }
            earliest(&mut needs.first_end, current.ends);
            let extend_at = current.ends - self.lease / 3 * 2;
            if !can_extend {
                return;
            }
            due |= extend_at <= now;
            if extend_at <= soon {
                needs.extend.push((key, in_flight.clone(), current.lease.clone()));
            }
            earliest(&mut needs.next, extend_at);
        });
        for in_flight in lost {
            self.tell_lost(&in_flight, "the lease ended before it could be extended");
        }
        if !due {
            needs.extend.clear();
        }
        needs
    }

    /// Extends the leases in as few calls as possible.
    async fn extend(&self, leases: Vec<Extend>) -> Extended {
        let mut all = Extended::default();
        for chunk in leases.chunks(self.line.batch_max()) {
            let sent_at = Instant::now();
            let asked = chunk.iter().map(|(.., lease)| lease.clone()).collect();
            let answer = self.line.backend.extend(&self.line.name, asked, self.lease).await;
            if let Err(e) = &answer {
                tracing::debug!(queue = %self.line.name, error = %e, "extending leases failed");
            }
            for ((key, in_flight, _), answer) in chunk.iter().zip(spread(answer, chunk.len())) {
                // A task that was settled in the meantime is no longer here; its answer is ignored.
                self.registry.if_here(*key, in_flight, || self.heard(in_flight, answer, sent_at, &mut all));
            }
        }
        if all.unsupported {
            tracing::warn!(queue = %self.line.name, "this backend can't extend leases; a handler must end before its lease");
        }
        all
    }

    fn heard(&self, in_flight: &InFlight, answer: Result<Lease>, sent_at: Instant, all: &mut Extended) {
        match answer {
            Ok(lease) => {
                if lease.cancelled {
                    in_flight.tell_cancelled();
                }
                let mut current = in_flight.lease.lock();
                current.ends = current.ends.max(sent_at + self.lease);
                current.lease = lease;
            }
            Err(e) if e.kind() == ErrorKind::LeaseLost => self.tell_lost(in_flight, e.message()),
            Err(e) => {
                all.repeat = true;
                all.unsupported |= unsupported(&e);
            }
        }
    }

    fn tell_lost(&self, in_flight: &InFlight, why: &str) {
        tracing::warn!(queue = %self.line.name, id = %in_flight.task.lease.id, why, "the lease of a running task is lost");
        in_flight.tell_lost();
    }

    /// Pause between retries of an extension that fails.
    fn pause(&self) -> Duration {
        (self.lease / 20).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }
}

#[derive(Default)]
struct Extended {
    repeat: bool,
    unsupported: bool,
}

fn unsupported(e: &Error) -> bool {
    e.kind() == ErrorKind::Unsupported
}

fn earliest(of: &mut Option<Instant>, at: Instant) {
    *of = Some(of.map_or(at, |first| first.min(at)));
}
