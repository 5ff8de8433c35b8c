//! Asks the store and the named workers at intervals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use delayline::{QueueName, QueueStats};
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::args::WatchArgs;
use super::board::{Board, Past, Row, out, tasks};
use super::scrape::{self, Told};
use crate::store::session::Session;

/// Interval of asking for the list of queues, for which a store may have to look through all its keys.
const QUEUES_EVERY: Duration = Duration::from_secs(10);
/// The maximum number of queues that are shown.
const QUEUES_MAX: usize = 200;
/// Time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Poller {
    session: Arc<Session>,
    args: WatchArgs,
    boards: watch::Sender<Arc<Board>>,
    again: Arc<Notify>,
    /// The list of queues, and when it was asked for.
    queues: Vec<QueueName>,
    asked: Option<Instant>,
    past: HashMap<QueueName, Past<u64>>,
    workers: Vec<Past<Told>>,
}

impl Poller {
    pub(super) fn new(session: Arc<Session>, args: WatchArgs) -> (Self, watch::Receiver<Arc<Board>>) {
        let backend = session.backend.capabilities().name;
        let (boards, shown) = watch::channel(Arc::new(Board { backend, ..Board::default() }));
        let workers = args.workers.iter().map(|_| Past::default()).collect();
        let (again, past, queues) = (Arc::default(), HashMap::new(), Vec::new());
        (Self { session, args, boards, again, queues, asked: None, past, workers }, shown)
    }

    /// Asks the store at once.
    pub(super) fn again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// Asks until the view is gone.
    pub(super) async fn run(mut self) {
        while !self.boards.is_closed() {
            let board = self.look().await;
            self.boards.send_replace(Arc::new(board));
            tokio::select! {
                () = sleep(self.args.every) => {}
                () = self.again.notified() => {}
            }
        }
    }

    async fn look(&mut self) -> Board {
        let mut board = Board { backend: self.session.backend.capabilities().name, ..Board::default() };
        let (found, answered) = tokio::join!(self.find_queues(), self.ask_workers());
        match found {
            Ok(Some(queues)) => (self.queues, self.asked) = (queues, Some(Instant::now())),
            Ok(None) => {}
            Err(e) => board.trouble = Some(e),
        }
        let now = Instant::now();
        for (past, told) in self.workers.iter_mut().zip(answered) {
            match told {
                Some(told) => {
                    past.push(now, told);
                    board.workers.get_or_insert((0, 0)).1 += 1;
                }
                None => *past = Past::default(),
            }
            board.workers.get_or_insert((0, 0)).0 += 1;
        }
        board.left_out = self.queues.len().saturating_sub(QUEUES_MAX);
        let shown = &self.queues[..self.queues.len().min(QUEUES_MAX)];
        self.past.retain(|queue, _| shown.contains(queue));
        for queue in shown {
            let stats = match ask(&self.session, queue).await {
                Ok(stats) => Some(stats),
                Err(e) => {
                    board.trouble = Some(e);
                    None
                }
            };
            let past = self.past.entry(queue.clone()).or_default();
            match &stats {
                Some(stats) => past.push(Instant::now(), tasks(stats)),
                None => *past = Past::default(),
            }
            let out = out(self.workers.iter(), queue);
            board.rows.push(Row { queue: queue.clone(), stats, net: past.change(), out });
            if board.trouble.is_some() {
                // The other queues would probably fail in the same way, each after its own timeout.
                let rest = shown.iter().skip(board.rows.len());
                board.rows.extend(rest.map(|queue| Row { queue: queue.clone(), stats: None, net: None, out: None }));
                break;
            }
        }
        board
    }

    /// Updates the list of queues, if it is time to.
    async fn find_queues(&self) -> Result<Option<Vec<QueueName>>, String> {
        if !self.args.queues.is_empty() {
            return Ok(Some(self.args.queues.clone()));
        }
        if self.asked.is_some_and(|asked| asked.elapsed() < QUEUES_EVERY) {
            return Ok(None);
        }
        answer(timeout(PATIENCE, self.session.backend.queues()).await).map(Some)
    }

    async fn ask_workers(&self) -> Vec<Option<Told>> {
        let told = join_all(self.args.workers.iter().map(|address| scrape::ask(address))).await;
        told.into_iter().map(Result::ok).collect()
    }
}

async fn ask(session: &Session, queue: &QueueName) -> Result<QueueStats, String> {
    answer(timeout(PATIENCE, session.backend.stats(queue)).await)
}

fn answer<T>(answer: Result<delayline::Result<T>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
