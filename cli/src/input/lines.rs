//! Splits the input into lines of limited length. Before it waits for more input, it passes on what was read.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::batch::Batcher;
use crate::signal::Stop;

/// The longest line, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read at once.
const CHUNK: usize = 128 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of an input, numbered from 1.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<Watchful>,
    line: Vec<u8>,
    number: u64,
}

/// What a line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The line is in [`Lines::line`], with its line end.
    Line,
    /// The line was over the limit, and was skipped.
    TooLong,
    /// The input has ended.
    End,
}

impl Lines {
    pub(super) fn new(input: Watchful) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK, input), line: Vec::new(), number: 0 }
    }

    /// Reads the next line in place of the one before.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        self.line.clear();
        if self.line.capacity() > CHUNK {
            self.line = Vec::new();
        }
        self.append(LINE_BYTES_MAX)
    }

    /// Appends the next line to the current one, for a row that continues in it.
    pub(super) fn next_too(&mut self) -> io::Result<Found> {
        self.append(LINE_BYTES_MAX.saturating_sub(self.line.len()))
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The number of the line that was read last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether reading stopped before the end of the input, which may have cut the last line.
    pub(super) fn was_left(&self) -> bool {
        self.reader.get_ref().left
    }

    fn append(&mut self, limit: usize) -> io::Result<Found> {
        let at = self.line.len();
        let read = self.reader.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Found::End);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') && self.line.len() - at > limit {
            self.line.clear();
            self.reader.skip_until(b'\n')?;
            return Ok(Found::TooLong);
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Found::Line)
    }
}

/// An input that passes on what was read before it waits, and that ends when the run is stopped.
#[derive(Debug)]
pub(super) struct Watchful {
    file: File,
    /// The input is a stream.
    is_stream: bool,
    to_the_end: bool,
    batcher: Rc<RefCell<Batcher>>,
    stop: Stop,
    left: bool,
}

impl Watchful {
    /// Reads a stream, or a file, which may be read to its end in any case.
    pub(super) fn new(
        file: File,
        is_stream: bool,
        to_the_end: bool,
        batcher: Rc<RefCell<Batcher>>,
        stop: Stop,
    ) -> Self {
        Self { file, is_stream, to_the_end, batcher, stop, left: false }
    }

    /// Whether there is something to read; if not, the run was stopped.
    fn ready(&self) -> io::Result<bool> {
        if self.batcher.borrow().is_closed() {
            return Ok(false);
        }
        if !self.is_stream {
            return Ok(self.to_the_end || !self.stop.is_stopped());
        }
        loop {
            if self.stop.is_stopped() {
                return Ok(false);
            }
            let patience = self.batcher.borrow().patience();
            let timeout = match patience {
                None => PollTimeout::NONE,
                // Rounded up, so as not to spin through the last millisecond.
                Some(patience) => PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            };
            let mut waiting = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.wake().as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, timeout) {
                Ok(0) => self.batcher.borrow_mut().flush(),
                Ok(_) => {
                    let readable = waiting[0].any().unwrap_or(true) && !self.stop.is_stopped();
                    if readable && patience.is_some_and(|patience| patience.is_zero()) {
                        self.batcher.borrow_mut().flush();
                    }
                    if readable {
                        return Ok(true);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for Watchful {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left || !self.ready()? {
            self.left = true;
            return Ok(0);
        }
        self.file.read(buffer)
    }
}
