//! When the next task is due, for messages and the progress bar.
//!
//! A claim only tells when to look again, which may be long before a distant due time. The listing has the exact time.

use std::time::Duration;

use delayline::{Clock, Page, Support, SystemClock};

use super::state::Run;
use crate::exit::Failure;

/// Interval of listings for the progress bar. A listing looks at every task.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Below this, the answer of a claim is precise enough.
const NEAR: Duration = Duration::from_millis(250);

/// Time until the next task is due; zero if one is due now, `None` if there is none, or if the backend can't tell.
pub(crate) async fn next_due_in(run: &Run) -> Result<Option<Duration>, Failure> {
    if run.backend.capabilities().inspect == Support::Unsupported {
        return Ok(None);
    }
    let first = run.backend.list(&run.queue, Page::first(1)).await?;
    Ok(first.first().map(|task| task.visible_at.saturating_since(SystemClock::new().wall())))
}

/// Keeps the time in the tally up to date, without end.
pub(crate) async fn follow(run: &Run) {
    let mut known = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let told = run.tally.told_next_due();
        if told == known || run.tally.next_due_in().is_none_or(|wait| wait < NEAR) {
            continue;
        }
        known = told;
        // Without a listing, the answer of the claim stays.
        if let Ok(found @ Some(_)) = next_due_in(run).await {
            run.tally.found_next_due(told, found);
        }
    }
}
