//! The lateness of deliveries after their due times, and of bare sleeps to the same instants.
//!
//! The lateness of a delivery counts from the due time that the store tells until the application has the task, so it
//! includes the way back from the server. The offset of the store's clock is bounded by the store's answers to
//! `schedule`. If both are one clock, nothing is corrected.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use delayline::{Clock, SystemClock, Timestamp};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Due times are rounded up to the millisecond, delays too.
const ROUNDED_US: i64 = 2_000;
/// Length of the pieces of a graph over time.
pub(super) const SLOT: Duration = Duration::from_millis(250);
/// Maximum number of pieces. If a run takes longer, its end is in the last piece.
const SLOTS_MAX: usize = 2_400;

/// Maximum lateness in the histogram; later deliveries count as this late.
const LATEST_US: u64 = 3_600_000_000;

/// Microseconds.
pub(super) type Micros = Histogram<u64>;

/// An empty histogram, to three digits.
pub(super) fn histogram() -> Micros {
    to_digits(3)
}

fn to_digits(digits: u8) -> Micros {
    Histogram::new_with_bounds(1, LATEST_US, digits).expect("such bounds are possible")
}

/// The lateness of one run.
#[derive(Debug)]
pub(super) struct Late {
    origin: Instant,
    /// The wall clock at the origin; read once, so that a step of it changes nothing.
    wall: Timestamp,
    /// Lower and upper bound of the offset by which the store's clock is ahead of ours.
    ahead: [AtomicI64; 2],
    all: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    micros: Micros,
    slots: Vec<Option<Micros>>,
}

impl Late {
    pub(super) fn new() -> Self {
        let all = Measured { micros: histogram(), slots: Vec::new() };
        Self {
            origin: Instant::now(),
            wall: SystemClock::new().wall(),
            ahead: [AtomicI64::new(i64::MIN), AtomicI64::new(i64::MAX)],
            all: Mutex::new(all),
        }
    }

    /// A task that was to wait for `after` was sent and answered then, and the store says that it is due at `due_at`.
    pub(super) fn scheduled(&self, sent: Instant, answered: Instant, after: Duration, due_at: Timestamp) {
        let accepted = due_at.unix_micros() - after.as_micros() as i64;
        self.ahead[0].fetch_max(accepted - ROUNDED_US - self.wall_at(answered), Ordering::Relaxed);
        self.ahead[1].fetch_min(accepted - self.wall_at(sent), Ordering::Relaxed);
    }

    /// Tasks with these due times have arrived.
    pub(super) fn delivered(&self, at: Instant, due: impl Iterator<Item = Timestamp>) {
        let now = self.wall_at(at) + self.ahead();
        let slot = (at.duration_since(self.origin).as_millis() / SLOT.as_millis()) as usize;
        let slot = slot.min(SLOTS_MAX - 1);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Measured { micros, slots } = &mut *all;
        if slots.len() <= slot {
            slots.resize_with(slot + 1, || None);
        }
        let slot = slots[slot].get_or_insert_with(|| to_digits(2));
        for due in due {
            let late = u64::try_from(now - due.unix_micros()).unwrap_or(0);
            micros.saturating_record(late);
            slot.saturating_record(late);
        }
    }

    /// Everything, and its pieces by the time of delivery, where anything came in them.
    pub(super) fn measured(&self) -> (Micros, Vec<Option<Micros>>) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        (all.micros.clone(), all.slots.clone())
    }

    pub(super) fn origin(&self) -> Instant {
        self.origin
    }

    fn ahead(&self) -> i64 {
        let [least, most] = [0, 1].map(|i| self.ahead[i].load(Ordering::Relaxed));
        // One clock, as far as can be seen; or nothing is known.
        if least <= 0 && most >= 0 { 0 } else { least.midpoint(most) }
    }

    fn wall_at(&self, at: Instant) -> i64 {
        self.wall.unix_micros() + at.saturating_duration_since(self.origin).as_micros() as i64
    }
}

/// Bare sleeps to the instants at which tasks are due.
#[derive(Debug, Default)]
pub(super) struct Bare {
    sleeps: JoinSet<Micros>,
}

impl Bare {
    /// Sleeps to these instants, one after the other.
    pub(super) fn sleep(&mut self, to: impl IntoIterator<Item = Instant, IntoIter: Send> + Send + 'static) {
        self.sleeps.spawn(async move {
            let mut micros = histogram();
            for instant in to {
                sleep_until(instant).await;
                micros.saturating_record(instant.elapsed().as_micros() as u64);
            }
            micros
        });
    }

    /// How late they were, when all have ended.
    pub(super) async fn measured(self) -> Micros {
        let mut all = histogram();
        for micros in self.sleeps.join_all().await {
            // Both have the same bounds.
            all.add(micros).expect("they are of one kind");
        }
        all
    }
}

/// A quantile in milliseconds.
pub(super) fn quantile_ms(micros: &Micros, quantile: f64) -> f64 {
    micros.value_at_quantile(quantile) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(late: &Late) -> u64 {
        late.measured().0.max()
    }

    #[tokio::test(start_paused = true)]
    async fn lateness_counts_from_the_due_time_of_the_store() {
        let second = Duration::from_secs(1);
        for ahead in [0_i64, 5_000_000, -5_000_000] {
            let late_of = Late::new();
            let begun = late_of.origin();
            let theirs =
                |at: Duration| Timestamp::from_unix_micros(late_of.wall.unix_micros() + at.as_micros() as i64 + ahead);
            late_of.scheduled(begun, begun + Duration::from_millis(1), second, theirs(second));
            late_of.delivered(begun + second + Duration::from_millis(7), [theirs(second)].into_iter());
            // To half of what the call took, with its roundings, where clocks differ.
            assert!(
                late(&late_of).abs_diff(7_000) <= if ahead == 0 { 7 } else { 1_510 },
                "{ahead}: {}",
                late(&late_of)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bare_sleeps_are_all_measured() {
        let begun = Instant::now();
        let mut bare = Bare::default();
        bare.sleep((1..=10).map(move |n| begun + Duration::from_millis(n)));
        bare.sleep([begun]);
        assert_eq!(bare.measured().await.len(), 11);
    }
}
