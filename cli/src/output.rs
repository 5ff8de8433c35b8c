//! Standard output: one line with a JSON object for each task. It is a contract with programs, documented in
//! `docs/cli.md`.
//!
//! A dedicated thread writes, in pieces that a pipe accepts without blocking. So a reader that has stopped reading
//! can't prevent the run from stopping, and the thread knows which lines were written.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use delayline::{Delivery, GroupName, QueueName, TaskId, Timestamp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::console::Console;
use crate::exit::Failure;
use crate::signal::{Cause, Stop};

/// Bytes that a pipe accepts without blocking once it is writable (PIPE_BUF on Linux).
const PIECE: usize = 4096;
/// When the run is stopped, the time limit for finishing a line that is half written.
const HALF_A_LINE_PATIENCE: Duration = Duration::from_millis(500);

/// A delivery as it is written. The order of the fields is part of the contract.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a TaskId,
    queue: &'a QueueName,
    payload: Payload<'a>,
    due_at: Timestamp,
    delivered_at: Timestamp,
    lateness_ms: f64,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a GroupName>,
}

/// The payload as JSON. A payload that is not JSON, from another program on a shared queue, is shown as text.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Payload<'a> {
    Json(&'a RawValue),
    Text(String),
}

impl<'a> Payload<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        match serde_json::from_slice(payload) {
            Ok(json) => Self::Json(json),
            Err(_) => Self::Text(String::from_utf8_lossy(payload).into_owned()),
        }
    }
}

/// Lines to be written, and the end of each.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Lines {
    pub(crate) fn push(&mut self, delivery: &Delivery<Bytes>) -> Result<(), Failure> {
        let line = Line {
            id: delivery.id(),
            queue: delivery.queue(),
            payload: Payload::new(delivery.payload()),
            due_at: delivery.due_at(),
            delivered_at: delivery.delivered_at(),
            lateness_ms: delivery.lateness().as_micros() as f64 / 1000.0,
            attempt: delivery.attempt(),
            group: delivery.group(),
        };
        self.json(&line)
    }

    /// A line with one JSON value.
    pub(crate) fn json(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.bytes, line)
            .map_err(|e| Failure::new(format!("cannot write a line as JSON: {e}")))?;
        self.end();
        Ok(())
    }

    /// A line of text.
    pub(crate) fn text(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.end();
    }

    fn end(&mut self) {
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
    }
}

/// How far writing got.
#[derive(Debug)]
pub(crate) struct Written {
    /// Number of lines that were written, in order.
    pub(crate) lines: usize,
    /// Why writing ended, if it did: by an error, or because the run was stopped.
    pub(crate) ended: Option<Ended>,
}

#[derive(Debug)]
pub(crate) enum Ended {
    Stopped,
    Closed,
    Failed(Failure),
}

type Job = (Lines, oneshot::Sender<Written>);

/// The way to standard output.
#[derive(Debug)]
pub(crate) struct Output {
    jobs: mpsc::Sender<Job>,
}

impl Output {
    pub(crate) fn open(console: Arc<Console>, stop: Stop) -> Result<Self, Failure> {
        let cannot = |e: io::Error| Failure::io("cannot write to stdout", &e);
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(cannot)?);
        let waits = !file.metadata().map_err(cannot)?.is_file();
        if waits {
            watch(file.try_clone().map_err(cannot)?, stop.clone())?;
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        let mut writer = Writer { file, waits, stop, give_up_at: None };
        let write = move || {
            while let Some((lines, done)) = queue.blocking_recv() {
                let _ = done.send(console.without_bar(|| writer.write(&lines)));
            }
        };
        spawn("output", write)?;
        Ok(Self { jobs })
    }

    /// Writes lines, until all are written or writing ends.
    pub(crate) async fn write(&self, lines: Lines) -> Written {
        let (done, written) = oneshot::channel();
        let gone = || Written { lines: 0, ended: Some(Ended::Failed(Failure::new("the thread for stdout has ended"))) };
        if self.jobs.send((lines, done)).await.is_err() {
            return gone();
        }
        written.await.unwrap_or_else(|_| gone())
    }
}

/// Stops the run when the reader of a pipe goes away, also while there is nothing to write.
fn watch(file: File, stop: Stop) -> Result<(), Failure> {
    spawn("output-watch", move || {
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        while !stop.is_stopped() {
            let mut fds =
                [PollFd::new(file.as_fd(), PollFlags::empty()), PollFd::new(stop.wake().as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[0].revents().is_some_and(|events| events.intersects(gone)) => {
                    stop.stop(Cause::OutputClosed);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // The next write reports the error.
                Err(_) => return,
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(|e| Failure::io("cannot start a thread", &e))?;
    Ok(())
}

struct Writer {
    file: File,
    /// Whether writing can block, as on pipes and terminals.
    waits: bool,
    stop: Stop,
    /// Set once the run is stopped.
    give_up_at: Option<Instant>,
}

impl Writer {
    fn write(&mut self, lines: &Lines) -> Written {
        let mut at = 0;
        let ended = loop {
            let line = lines.ends.partition_point(|end| *end <= at);
            let Some(&line_end) = lines.ends.get(line) else { break None };
            let line_begins = line.checked_sub(1).map_or(0, |before| lines.ends[before]);
            let stopped = self.stop.is_stopped();
            if stopped && at == line_begins {
                break Some(Ended::Stopped);
            }
            let until = match (stopped, self.waits) {
                (true, _) => line_end,
                (false, true) => piece_end(&lines.ends, at, line_end),
                (false, false) => lines.bytes.len(),
            };
            match self.write_piece(&lines.bytes[at..until]) {
                Ok(Some(written)) => at += written,
                Ok(None) => break Some(Ended::Stopped),
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break Some(Ended::Closed),
                Err(e) => break Some(Ended::Failed(Failure::io("cannot write to stdout", &e))),
            }
        };
        Written { lines: lines.ends.partition_point(|end| *end <= at), ended }
    }

    /// Writes some bytes; `None` if the run is stopped and the pipe has no room.
    fn write_piece(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let piece = if !self.waits {
            bytes
        } else if self.wait_for_room()? {
            &bytes[..bytes.len().min(PIECE)]
        } else {
            return Ok(None);
        };
        match self.file.write(piece) {
            // Other programs may have made it non-blocking.
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(Some(0)),
            written => written.map(Some),
        }
    }

    fn wait_for_room(&mut self) -> io::Result<bool> {
        loop {
            let patience = self.stop.is_stopped().then(|| {
                let give_up_at = *self.give_up_at.get_or_insert_with(|| Instant::now() + HALF_A_LINE_PATIENCE);
                give_up_at.saturating_duration_since(Instant::now())
            });
            let output = PollFd::new(self.file.as_fd(), PollFlags::POLLOUT);
            let wake = PollFd::new(self.stop.wake().as_fd(), PollFlags::POLLIN);
            let ready = match patience {
                None => poll_first(&mut [output, wake], PollTimeout::NONE)?,
                Some(patience) => {
                    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
                    let ready = poll_first(&mut [output], timeout)?;
                    if !ready && patience.is_zero() {
                        return Ok(false);
                    }
                    ready
                }
            };
            if ready {
                return Ok(true);
            }
        }
    }
}

/// The end of the next piece for a pipe. It is the end of a line if a whole line fits, so that lines are written in one
/// step or not at all.
fn piece_end(ends: &[usize], at: usize, line_end: usize) -> usize {
    let fitting = ends[..ends.partition_point(|end| *end <= at + PIECE)].last();
    fitting.copied().filter(|end| *end > at).unwrap_or(line_end)
}

/// Whether something came for the first of these; an error shows when it is written to.
fn poll_first(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<bool> {
    match poll(fds, timeout) {
        Ok(_) => Ok(fds[0].any().unwrap_or(true)),
        Err(Errno::EINTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_lines_where_they_can() {
        let ends = [100, 4000, 4200, 20_000];
        assert_eq!(piece_end(&ends, 0, 100), 4000);
        assert_eq!(piece_end(&ends, 4000, 4200), 4200);
        assert_eq!(piece_end(&ends, 4200, 20_000), 20_000, "which is written in several pieces");
        assert_eq!(piece_end(&ends, 16_000, 20_000), 20_000);
    }
}
