//! Taking what is due: never before its time, and on a virtual clock within the declared lateness.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Claim, ClaimedTask, DelayBackend, QueueName, Subscription};
use tokio::time::Instant;

use crate::trial::{LONG_LEASE, Trial};

/// Takes one task that is due `delay` after `began`, which was read before the delay began: not earlier, and on a
/// virtual clock, on which nothing else takes time, not later than declared.
pub(super) async fn take_after(
    t: &Trial,
    subscription: &mut Box<dyn Subscription>,
    began: Instant,
    delay: Duration,
) -> ClaimedTask {
    let taken = t.take(subscription, 1).await.pop();
    let elapsed = began.elapsed();
    let task = taken.unwrap_or_else(|| panic!("a task due after {delay:?} has not come after {elapsed:?}"));
    assert!(elapsed >= delay, "a task due after {delay:?} came after {elapsed:?}");
    assert!(!t.is_virtual() || elapsed <= delay + late_max(t), "a task due after {delay:?} came after {elapsed:?}");
    task
}

/// Takes and completes all that is due now; tells how many the claims dead-lettered. A backend that can't say when the next is
/// due may have it on its way, and gets the time for that.
pub(super) async fn claim_all(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queue: &QueueName,
    subscription: &mut Box<dyn Subscription>,
) -> (Vec<ClaimedTask>, u64) {
    let (mut taken, mut dead_lettered) = (Vec::new(), 0);
    let mut ends = Instant::now() + t.units(1);
    loop {
        let claimed = subscription.claim(Claim::new(1_000, LONG_LEASE.min(t.caps().lease_max))).await.expect("a claim");
        t.complete(backend, queue, &claimed.deliveries).await;
        dead_lettered += claimed.dead_lettered;
        if !claimed.deliveries.is_empty() || claimed.dead_lettered > 0 {
            taken.extend(claimed.deliveries);
            ends = Instant::now() + t.units(1);
            continue;
        }
        let left = ends.saturating_duration_since(Instant::now());
        match claimed.next_due_in {
            Some(Duration::ZERO) => {}
            None if !t.is_virtual() && !left.is_zero() => subscription.wait(left).await,
            Some(_) | None => return (taken, dead_lettered),
        }
    }
}

/// How late a waiting consumer may be.
pub(super) fn late_max(t: &Trial) -> Duration {
    t.caps().resolution + t.caps().lateness
}
