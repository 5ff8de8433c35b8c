//! The display during a run: one bar with the current step or, without a terminal, a line for each result.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use tokio::time::sleep;

use super::drive::Drive;
use crate::console::Console;
use crate::progress::bar;

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Displays the progress.
pub(super) struct Show {
    console: Arc<Console>,
    bar: Option<ProgressBar>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// Store, scenario and repeat.
    what: String,
    step: String,
    watched: Option<(Weak<Drive>, u64)>,
    counted: Option<(u64, u64)>,
    runs: (u64, u64),
}

impl Show {
    pub(super) fn new(console: Arc<Console>, wanted: bool, runs: u64) -> Self {
        let bar = if wanted { bar(&console) } else { None };
        Self { console, bar, now: Mutex::new(Now { runs: (0, runs), ..Now::default() }) }
    }

    /// A run begins.
    pub(super) fn begin(&self, what: impl fmt::Display) {
        self.change(|now| now.what = what.to_string());
        self.step("warming up");
    }

    /// A run has ended, or was left out.
    pub(super) fn ended(&self, runs: u64) {
        self.change(|now| now.runs.0 += runs);
    }

    /// Sets the current step.
    pub(super) fn step(&self, step: &str) {
        self.change(|now| (now.step, now.watched, now.counted) = (step.to_owned(), None, None));
    }

    /// Sets the current step, which ends when this many tasks are complete.
    pub(super) fn watch(&self, step: &str, drive: &Arc<Drive>, of: u64) {
        self.step(step);
        self.change(|now| now.watched = Some((Arc::downgrade(drive), of)));
    }

    /// Sets the progress of the current step.
    pub(super) fn count(&self, step: &str, done: u64, of: u64) {
        self.change(|now| (now.step, now.counted) = (step.to_owned(), Some((done, of))));
    }

    /// Writes a message.
    pub(super) fn note(&self, what: impl fmt::Display) {
        self.console.note(what);
    }

    /// Updates the bar, without end.
    pub(super) async fn draw(&self) {
        loop {
            if let Some(bar) = &self.bar {
                let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                bar.set_length(now.runs.1.max(1));
                bar.set_position(now.runs.0);
                bar.set_message(now.message());
                drop(now);
                bar.tick();
            }
            sleep(REDRAW_EVERY).await;
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut Now) -> R) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Now {
    fn message(&self) -> String {
        let watched =
            self.watched.as_ref().and_then(|(drive, of)| Some((drive.upgrade()?.ledger().completed_count(), *of)));
        let how_far = watched.or(self.counted).map(|(done, of)| format!(" {}/{}", HumanCount(done), HumanCount(of)));
        format!("{}: {}{}", self.what, self.step, how_far.unwrap_or_default())
    }
}
