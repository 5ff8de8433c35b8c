//! A history as a file of JSON lines: the first is the [`Header`], every other an [`Event`]. It can be checked again
//! without the store.

use std::fmt;
use std::io::{self, BufRead, Write};

use delayline_core::{Capabilities, LeaseHold, Order, Support};
use serde::{Deserialize, Serialize};

use super::event::Event;

/// The test of a history, and what its backend declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The test.
    pub test: String,
    /// Its seed.
    pub seed: u64,
    /// The backend's name, for people.
    pub backend: String,
    /// The unit in which due times are kept.
    pub resolution_us: u64,
    /// How late a task may be, beyond that.
    pub lateness_us: u64,
    /// How exact the order is.
    pub order: DeclaredOrder,
    /// How long the id of a completed task is remembered.
    pub retry_window_us: u64,
    /// Whether an id stands for one task.
    #[serde(default = "yes")]
    pub unique_ids: bool,
    /// Whether leases are kept by the store, rather than by the connection of the client that claimed.
    #[serde(default = "yes")]
    pub leases_stored: bool,
}

fn yes() -> bool {
    true
}

/// [`Order`] as a file keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredOrder {
    /// By (visible at, sequence), always.
    Exact,
    /// Exact within each of this many shards.
    PerShard(u32),
    /// Tasks farther apart than this many microseconds.
    WithinUs(u64),
    /// None.
    Any,
}

impl Header {
    /// For a test against a backend.
    #[must_use]
    pub fn new(test: &str, seed: u64, caps: &Capabilities) -> Self {
        let us = super::event::micros;
        Self {
            test: test.into(),
            seed,
            backend: caps.name.into(),
            resolution_us: us(caps.resolution),
            lateness_us: us(caps.lateness),
            order: match caps.order {
                Order::Exact => DeclaredOrder::Exact,
                Order::PerShard(shards) => DeclaredOrder::PerShard(shards),
                Order::Within(by) => DeclaredOrder::WithinUs(us(by)),
                _ => DeclaredOrder::Any,
            },
            retry_window_us: us(caps.retry_window),
            unique_ids: caps.unique_ids != Support::Unsupported,
            leases_stored: caps.lease_hold == LeaseHold::Store,
        }
    }
}

/// A history with its header.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What it belongs to.
    pub header: Header,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl Recording {
    /// Writes it as JSON lines.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut line = |json: serde_json::Result<String>| writeln!(to, "{}", json.map_err(io::Error::other)?);
        line(serde_json::to_string(&self.header))?;
        self.events.iter().try_for_each(|event| line(serde_json::to_string(event)))
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`ReadError`] with the line that is wrong.
    pub fn read(from: impl BufRead) -> Result<Self, ReadError> {
        let mut lines = from.lines().enumerate();
        let at = |line: usize, what: String| ReadError { line: line + 1, what };
        let header = match lines.next() {
            None => return Err(at(0, "the file is empty; its first line is the header".into())),
            Some((n, line)) => {
                let line = line.map_err(|e| at(n, e.to_string()))?;
                serde_json::from_str(&line)
                    .map_err(|e| at(n, format!("expected the header of a history: {}", what(&e))))?
            }
        };
        let mut events = Vec::new();
        for (n, line) in lines {
            let line = line.map_err(|e| at(n, e.to_string()))?;
            events.push(serde_json::from_str(&line).map_err(|e| at(n, format!("expected an event: {}", what(&e))))?);
        }
        Ok(Self { header, events })
    }
}

/// serde's message without its line number, which is always 1.
fn what(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]).to_owned()
}

/// A file that holds no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ReadError {}
