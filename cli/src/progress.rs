//! The progress bar on standard error, if that is a terminal.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::console::Console;
use crate::tally::{Counts, Tally};
use crate::words::{many, span};

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Waits shorter than this are not shown: they end before anyone can read them.
const SOON: Duration = Duration::from_millis(100);

/// A bar that a dedicated thread updates until it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows a bar. `None` if standard error is not a terminal, or can't show one.
    pub(crate) fn start(console: &Console, tally: Arc<Tally>, done: &'static str) -> Option<Self> {
        let bar = bar(console)?;
        let (end, ended) = sync_channel(0);
        let drawn = bar.clone();
        let draw = move || {
            loop {
                show(&drawn, tally.counts(), tally.next_due_in(), done);
                if !matches!(ended.recv_timeout(REDRAW_EVERY), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(draw).ok()?;
        Some(Self { bar, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// A bar that the caller updates. `None` if standard error is not a terminal, or can't show one.
pub(crate) fn bar(console: &Console) -> Option<ProgressBar> {
    if !console.is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return None;
    }
    let terminal = Unpadded(Term::buffered_stderr());
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal), 20);
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(style());
    console.show(bar.clone());
    Some(bar)
}

/// The terminal, without the blanks that a bar is padded with. After such blanks, the terminal writes `^C` to the next
/// line, and the bar could not be cleared.
#[derive(Debug)]
struct Unpadded(Term);

impl TermLike for Unpadded {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if text.bytes().all(|byte| byte == b' ') { Ok(()) } else { self.0.write_str(text) }
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("[{bar:20}] {msg}").expect("the template is well-formed").progress_chars("=> ")
}

fn show(bar: &ProgressBar, counts: Counts, next_due_in: Option<Duration>, done: &str) {
    bar.set_length(counts.accepted.max(1));
    bar.set_position((counts.completed + counts.dead).min(counts.accepted));
    bar.set_message(message(counts, next_due_in, done));
    bar.tick();
}

fn message(counts: Counts, next_due_in: Option<Duration>, done: &str) -> String {
    let mut parts = vec![format!("{}/{} {done}", counts.completed, counts.accepted.max(counts.completed))];
    if counts.running > 0 {
        parts.push(format!("{} running", counts.running));
    }
    let waiting = counts.outstanding().saturating_sub(counts.running);
    if waiting > 0 {
        parts.push(format!("{waiting} waiting"));
        let next = next_due_in.filter(|wait| *wait >= SOON);
        parts.extend(next.map(|wait| format!("next in {}", tenths(wait))));
    }
    if counts.retried > 0 {
        parts.push(many(counts.retried, "retry", "retries"));
    }
    if counts.dead > 0 {
        parts.push(format!("{} dead", counts.dead));
    }
    parts.join(", ")
}

/// A time for a countdown, no finer than can be read.
fn tenths(wait: Duration) -> String {
    if wait < Duration::from_secs(10) { format!("{:.1}s", wait.as_secs_f64()) } else { span(wait) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_is_to_say() {
        let mut counts = Counts { accepted: 10, completed: 3, ..Counts::default() };
        let wait = Some(Duration::from_millis(1260));
        assert_eq!(message(counts, wait, "delivered"), "3/10 delivered, 7 waiting, next in 1.3s");
        (counts.running, counts.retried, counts.dead) = (2, 1, 1);
        let all = "3/10 completed, 2 running, 4 waiting, 1 retry, 1 dead";
        assert_eq!(message(counts, None, "completed"), all);
    }
}
