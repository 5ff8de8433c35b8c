//! When the next task is due, for people who wait for it.
//!
//! What a claim tells is when to look again, which may be long before a task that is far away. The listing knows.

use std::time::Duration;

use delayline::{Clock, Page, Support, SystemClock};

use super::state::Run;
use crate::exit::Failure;

/// How often is looked, for the progress bar. A listing looks at every task.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a claim tells is near enough below that.
const NEAR: Duration = Duration::from_millis(250);

/// How long until the next task is due; zero if one is now, `None` if there is none, or the backend can't tell.
pub(crate) async fn next_due_in(run: &Run) -> Result<Option<Duration>, Failure> {
    if run.backend.capabilities().inspect == Support::Unsupported {
        return Ok(None);
    }
    let first = run.backend.list(&run.queue, Page::first(1)).await?;
    Ok(first.first().map(|task| task.visible_at.saturating_since(SystemClock::new().wall())))
}

/// Keeps the tally's note of it right, for ever.
pub(crate) async fn follow(run: &Run) {
    let mut known = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let told = run.tally.told_next_due();
        if told == known || run.tally.next_due_in().is_none_or(|wait| wait < NEAR) {
            continue;
        }
        known = told;
        // Where there is no listing, what the claim told has to do.
        if let Ok(found @ Some(_)) = next_due_in(run).await {
            run.tally.found_next_due(told, found);
        }
    }
}
