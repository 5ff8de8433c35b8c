//! Tasks, counts and dead letters as output: tables for people, and JSON for programs, a contract in `docs/cli.md`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use delayline::{DeadLetter, GroupName, Headers, QueueName, QueueStats, TaskId, TaskView, Timestamp};
use serde::Serialize;

use super::refs;
use crate::console::printable;
use crate::exit::Failure;
use crate::output::Payload;
use crate::words::span;

/// Characters of a payload that are shown in a table.
const PAYLOAD_CHARS_MAX: usize = 40;

/// A task that is pending or in flight.
#[derive(Serialize)]
pub(super) struct TaskShown<'a> {
    id: &'a TaskId,
    queue: &'a QueueName,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    visible_at: Timestamp,
    attempt: u32,
    #[serde(rename = "max_attempts")]
    attempts_max: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
    payload: Payload<'a>,
    r#ref: String,
}

impl<'a> TaskShown<'a> {
    pub(super) fn new(queue: &'a QueueName, view: &'a TaskView) -> Self {
        Self {
            id: &view.task.id,
            queue,
            state: view.state.as_str(),
            due_at: view.task.due_at,
            visible_at: view.visible_at,
            attempt: view.attempt,
            attempts_max: view.attempts_max,
            group: view.group.as_ref(),
            expires_at: view.expires_at,
            last_failure: view.last_failure.as_deref(),
            headers: headers(&view.headers),
            payload: Payload::new(&view.payload),
            r#ref: refs::text(&view.task),
        }
    }

    /// One line for each field.
    pub(super) fn lines(&self, now: Timestamp) -> Result<String, Failure> {
        let mut table = plain_table();
        let mut row = |what: &str, value: String| {
            table.add_row([what.to_owned(), printable(&value)]);
        };
        row("id", self.id.to_text().into_owned());
        row("queue", self.queue.to_string());
        row("state", self.state.replace('_', " "));
        if let Some(due) = self.due_at {
            row("due", format!("{due} ({})", from_now(due, now)));
        }
        if self.due_at != Some(self.visible_at) {
            row("visible", format!("{} ({})", self.visible_at, from_now(self.visible_at, now)));
        }
        row("attempts", format!("{} of {}", self.attempt, self.attempts_max));
        if let Some(group) = self.group {
            row("group", group.to_string());
        }
        if let Some(expires) = self.expires_at {
            row("expires", format!("{expires} ({})", from_now(expires, now)));
        }
        if let Some(failure) = self.last_failure {
            row("last failure", failure.to_owned());
        }
        for (name, value) in &self.headers {
            row("header", format!("{name}: {value}"));
        }
        row("payload", json(&self.payload)?);
        row("ref", self.r#ref.clone());
        Ok(text(table))
    }
}

fn headers(headers: &Headers) -> BTreeMap<&str, &str> {
    headers.iter().collect()
}

/// A listing of tasks as a table.
pub(super) fn task_table(tasks: &[TaskView], now: Timestamp) -> String {
    let mut table = plain_table();
    table.set_header(["DUE", "", "ID", "STATE", "ATTEMPT", "GROUP", "PAYLOAD"]);
    for view in tasks {
        table.add_row([
            view.visible_at.to_string(),
            from_now(view.visible_at, now),
            printable(&view.task.id.to_text()),
            view.state.as_str().replace('_', " "),
            format!("{}/{}", view.attempt, view.attempts_max),
            view.group.as_ref().map(|group| printable(group.as_str())).unwrap_or_default(),
            cut(&view.payload),
        ]);
    }
    text(table)
}

/// A dead letter: a task that will not run any more.
#[derive(Serialize)]
pub(super) struct LetterShown<'a> {
    id: &'a TaskId,
    queue: &'a QueueName,
    cause: &'static str,
    reason: &'a str,
    #[serde(rename = "buried_at")]
    dead_lettered_at: Timestamp,
    due_at: Timestamp,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a GroupName>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
    payload: Payload<'a>,
}

impl<'a> LetterShown<'a> {
    pub(super) fn new(queue: &'a QueueName, letter: &'a DeadLetter) -> Self {
        Self {
            id: &letter.id,
            queue,
            cause: letter.cause.as_str(),
            reason: letter.reason.as_str(),
            dead_lettered_at: letter.dead_lettered_at,
            due_at: letter.due_at,
            attempts: letter.attempts,
            group: letter.group.as_ref(),
            headers: headers(&letter.headers),
            payload: Payload::new(&letter.payload),
        }
    }
}

/// A listing of dead letters as a table.
pub(super) fn letter_table(letters: &[DeadLetter], now: Timestamp) -> String {
    let mut table = plain_table();
    table.set_header(["DEAD SINCE", "", "ID", "ATTEMPTS", "WHY", "PAYLOAD"]);
    for letter in letters {
        let why = match letter.reason.as_str() {
            "" => letter.cause.as_str().replace('_', " "),
            reason => format!("{}: {reason}", letter.cause.as_str().replace('_', " ")),
        };
        table.add_row([
            letter.dead_lettered_at.to_string(),
            from_now(letter.dead_lettered_at, now),
            printable(&letter.id.to_text()),
            letter.attempts.to_string(),
            printable(&why),
            cut(&letter.payload),
        ]);
    }
    text(table)
}

/// The statistics of a queue.
#[derive(Serialize)]
pub(super) struct StatsShown<'a> {
    queue: &'a QueueName,
    scheduled: u64,
    due: u64,
    in_flight: u64,
    dead: u64,
    #[serde(rename = "set_aside")]
    quarantined: u64,
    dead_dropped: u64,
    oldest_due_ms: Option<f64>,
    next_due_in_ms: Option<f64>,
    due_within: Option<DueWithinShown>,
    paused: bool,
}

#[derive(Serialize)]
struct DueWithinShown {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
}

impl<'a> StatsShown<'a> {
    pub(super) fn new(queue: &'a QueueName, stats: &QueueStats) -> Self {
        Self {
            queue,
            scheduled: stats.scheduled,
            due: stats.due,
            in_flight: stats.in_flight,
            dead: stats.dead,
            quarantined: stats.quarantined,
            dead_dropped: stats.dead_dropped,
            oldest_due_ms: stats.oldest_due.map(millis),
            next_due_in_ms: stats.next_due_in.map(millis),
            due_within: stats.due_within.map(|within| {
                let [second, minute, hour, day] = within.counts();
                DueWithinShown { second, minute, hour, day }
            }),
            paused: stats.paused,
        }
    }
}

/// Counts of queues as a table.
pub(super) fn stats_table(all: &[(QueueName, QueueStats)]) -> String {
    let mut table = plain_table();
    table.set_header(["QUEUE", "SCHEDULED", "DUE", "IN FLIGHT", "DEAD", "OLDEST DUE", "NEXT DUE IN", ""]);
    for (queue, stats) in all {
        let mut remarks = Vec::new();
        if stats.paused {
            remarks.push("paused".to_owned());
        }
        for (count, what) in [(stats.quarantined, "quarantined"), (stats.dead_dropped, "dead letters dropped")] {
            if count > 0 {
                remarks.push(format!("{count} {what}"));
            }
        }
        table.add_row([
            queue.to_string(),
            stats.scheduled.to_string(),
            stats.due.to_string(),
            stats.in_flight.to_string(),
            stats.dead.to_string(),
            stats.oldest_due.map_or_else(|| "-".to_owned(), span),
            stats.next_due_in.map_or_else(|| "-".to_owned(), span),
            remarks.join(", "),
        ]);
    }
    for column in 1..=6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text(table)
}

/// Milliseconds with up to three decimals.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// The table, without the blank at the beginning of every line.
fn text(mut table: Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt()
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

/// The distance between a time and now.
fn from_now(at: Timestamp, now: Timestamp) -> String {
    match at.saturating_since(now) {
        Duration::ZERO => format!("{} ago", span(now.saturating_since(at))),
        ahead => format!("in {}", span(ahead)),
    }
}

/// The beginning of a payload, in one line.
fn cut(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(PAYLOAD_CHARS_MAX * 4)]);
    let mut shown: String = printable(&text).chars().take(PAYLOAD_CHARS_MAX).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    shown
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new(format!("cannot write the answer: {e}")))
}

pub(super) fn out_json(value: &impl Serialize) -> Result<(), Failure> {
    out(&json(value)?)
}

/// Writes a line, or several, to standard output.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    write(&format!("{text}\n"))
}

/// Writes to standard output as it stands.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| Failure::io("cannot write to stdout", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_payload_is_cut_at_a_character() {
        assert_eq!(cut(b"null"), "null");
        assert_eq!(cut("ü".repeat(60).as_bytes()), "ü".repeat(40) + "…");
        assert_eq!(cut(b"a\x1b[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
