//! The display during the exam: a line for each event and, on a terminal, a progress bar.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use tokio::time::{MissedTickBehavior, interval};

use super::books::Books;
use crate::console::Console;
use crate::progress::bar;

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Displays the progress.
pub(super) struct Show {
    console: Arc<Console>,
    bar: Option<ProgressBar>,
    speaks: bool,
    handed_to_backend: AtomicU64,
}

impl Show {
    pub(super) fn new(console: Arc<Console>, speaks: bool, has_bar: bool) -> Self {
        let bar = if has_bar { bar(&console) } else { None };
        Self { console, bar, speaks, handed_to_backend: AtomicU64::new(0) }
    }

    /// Writes an event, with the time since the beginning.
    pub(super) fn tell(&self, after: Duration, what: impl fmt::Display) {
        if self.speaks {
            self.console.write(format!("{:>6.1}s  {what}\n", after.as_secs_f64()).as_bytes());
        }
    }

    /// Writes a remark without a time.
    pub(super) fn remark(&self, what: impl fmt::Display) {
        if self.speaks {
            self.console.write(format!("         {what}\n").as_bytes());
        }
    }

    /// One more task is on its way to the backend.
    pub(super) fn one_more(&self) {
        self.handed_to_backend.fetch_add(1, Ordering::Relaxed);
    }

    /// Updates the bar, without end.
    pub(super) async fn draw(&self, books: &Books, candidates: u32) {
        let Some(bar) = &self.bar else { return pending().await };
        bar.set_length(candidates.into());
        let mut ticks = interval(REDRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let counts = books.counts();
            if counts.scheduled == 0 {
                let sent = self.handed_to_backend.load(Ordering::Relaxed);
                bar.set_position(sent);
                bar.set_message(format!("{} of {} scheduled", count(sent), count(candidates.into())));
            } else {
                let done = counts.cancelled + counts.delivered;
                bar.set_position(done.min(counts.scheduled));
                // Short enough for 80 columns: a bar must not wrap.
                bar.set_message(format!(
                    "{} early, {} handed in, {} writing",
                    count(counts.cancelled),
                    count(counts.delivered),
                    count(counts.scheduled.saturating_sub(done))
                ));
            }
            bar.tick();
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A number with separators: 30,000.
pub(super) fn count(number: u64) -> HumanCount {
    HumanCount(number)
}
