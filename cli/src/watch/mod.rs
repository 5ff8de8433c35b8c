//! `delayline watch`: a live view of queues in the terminal.
//!
//! | module | what is in it |
//! |---|---|
//! | [`poll`] | asks the store and the named workers at intervals |
//! | [`board`] | the numbers of each queue, and how they change |
//! | [`scrape`] | reading a worker's metrics |
//! | [`draw`] | the board on a screen |

pub(crate) mod args;
mod board;
mod draw;
mod poll;
mod scrape;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use delayline::backend::AdminOp;
use delayline::{QueueName, Support};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use self::args::WatchArgs;
use self::board::Board;
use self::draw::View;
use self::poll::Poller;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::signal::{Cause, Stop};
use crate::start::{self, Logs, Threads};
use crate::store::session::Session;

/// The minimum of `--every`.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// Interval of looking for a key, a signal and new numbers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn main(global: &Global, args: &WatchArgs) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "`watch` needs a terminal; `delayline stats` shows the same numbers once, with --json for programs";
        return Err(Failure::new(why).exit(Exit::Usage));
    }
    if args.every < EVERY_MIN {
        return Err(Failure::new("--every: expected at least 100ms").exit(Exit::Usage));
    }
    let console = start::console(global, false, Logs::BesideScreen)?;
    let runtime = start::runtime(Threads::Few(1))?;
    let session = Arc::new(runtime.block_on(Session::open(global, "watch", console))?);
    session.needs(session.backend.capabilities().stats, "count tasks")?;
    // Not earlier: while it connects, the first Ctrl-C ends the program.
    let stop = start::signals(ratatui::restore)?;
    let (poller, boards) = Poller::new(session.clone(), args.clone());
    let again = poller.again();
    runtime.spawn(poller.run());
    let terminal = ratatui::try_init().map_err(|e| Failure::io("cannot use the terminal", &e))?;
    let ui =
        Ui { view: View::default(), boards, session: session.clone(), runtime: &runtime, again, stop: stop.clone() };
    let shown = ui.run(terminal);
    ratatui::restore();
    runtime.block_on(session.close());
    runtime.shutdown_background();
    shown.map_err(|e| Failure::io("cannot use the terminal", &e))?;
    Ok(match stop.cause() {
        Some(Cause::Signal(signal)) => Exit::Interrupted(*signal),
        Some(Cause::OutputClosed | Cause::Failed(_)) | None => Exit::Done,
    })
}

struct Ui<'a> {
    view: View,
    boards: watch::Receiver<Arc<Board>>,
    session: Arc<Session>,
    runtime: &'a Runtime,
    /// Asks the store at once.
    again: Arc<tokio::sync::Notify>,
    stop: Stop,
}

impl Ui<'_> {
    fn run(mut self, mut terminal: DefaultTerminal) -> io::Result<()> {
        while !self.stop.is_stopped() {
            let board = self.boards.borrow_and_update().clone();
            self.view.keep_within(&board);
            terminal.draw(|frame| self.view.draw(frame, &board))?;
            if event::poll(LOOK_EVERY)?
                && let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                let control_c = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                if control_c || !self.press(key.code, &board) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Handles a key. Returns false if it ends the view.
    fn press(&mut self, key: KeyCode, board: &Board) -> bool {
        if let Some((queue, op)) = self.view.asked.take() {
            if matches!(key, KeyCode::Char('y' | 'Y')) {
                self.administer(queue, op);
            }
            return true;
        }
        match key {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return false,
            KeyCode::Up | KeyCode::Char('k') => self.view.up(),
            KeyCode::Down | KeyCode::Char('j') => self.view.down(board),
            KeyCode::Char('p' | 'P') => self.view.ask_to_pause(board, self.can_pause()),
            _ => {}
        }
        true
    }

    fn can_pause(&self) -> bool {
        self.session.backend.capabilities().pause != Support::Unsupported
    }

    fn administer(&self, queue: QueueName, op: AdminOp) {
        let (session, again) = (self.session.clone(), self.again.clone());
        self.runtime.spawn(async move {
            // The next statistics of the queue show whether it worked.
            if let Err(e) = session.backend.administer(&queue, op).await {
                tracing::warn!(%queue, error = %e, "could not pause or resume the queue");
            }
            again.notify_one();
        });
    }
}
