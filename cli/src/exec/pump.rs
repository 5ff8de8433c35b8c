//! Passes the output of a command on to our own, and keeps its end.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::console::{Console, printable};

/// Bytes that are kept of the end of a command's output.
const TAIL_BYTES: usize = 1024;
/// Bytes of a line that are held back until the line is complete, while a progress bar is shown.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// Characters of a line that are quoted in messages.
const QUOTED_CHARS_MAX: usize = 200;

/// The destination of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    Stderr,
}

/// The end of the output.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    /// The last line that is not blank.
    pub(super) fn last_line(&self) -> Option<String> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(printable(line).chars().take(QUOTED_CHARS_MAX).collect())
    }

    fn push(&self, said: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&said[said.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }
}

/// Passes output on until it ends. If there is a progress bar, in whole lines.
pub(super) async fn pump(mut from: impl AsyncRead + Unpin, to: To, console: Arc<Console>, tail: Tail) {
    let (mut held, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let said = &buffer[..read];
        tail.push(said);
        held.extend_from_slice(said);
        let now = match held.iter().rposition(|byte| *byte == b'\n') {
            _ if read == 0 || !console.has_bar() || held.len() > HELD_BYTES_MAX => held.len(),
            Some(line_end) => line_end + 1,
            None => 0,
        };
        if now > 0 {
            let out: Vec<u8> = held.drain(..now).collect();
            write(out, to, console.clone()).await;
        }
        if read == 0 {
            return;
        }
    }
}

/// Writes on a thread that may block on the reader.
async fn write(mut out: Vec<u8>, to: To, console: Arc<Console>) {
    let work = move || {
        if console.has_bar() && out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
        match to {
            To::Stderr => console.write(&out),
            To::Stdout => console.without_bar(|| {
                let mut stdout = io::stdout().lock();
                // The command can't notice that the reader is gone, because it writes to our pipe.
                let _ = stdout.write_all(&out).and_then(|()| stdout.flush());
            }),
        }
    };
    let _ = tokio::task::spawn_blocking(work).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_in_a_bounded_tail() {
        let tail = Tail::default();
        assert_eq!(tail.last_line(), None);
        tail.push(&vec![b'x'; 1_000_000]);
        tail.push(b"\nno space left\n\n  \n");
        assert_eq!(tail.last_line().as_deref(), Some("no space left"));
        assert!(tail.0.lock().unwrap().len() <= TAIL_BYTES);
        tail.push(b"\x1b[31mred");
        assert_eq!(tail.last_line().as_deref(), Some("\u{fffd}[31mred"));
    }
}
