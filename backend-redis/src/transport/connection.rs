//! One multiplexed connection, which is replaced when it breaks or does not answer. Calls scripts by their hash.
//!
//! 1. Many callers share one connection; each request gets its own answer.
//! 2. A connection that broke or exceeded the response timeout is never used again. The next call opens a new one
//!    ([`Reconnect`]).
//! 3. A failed request returns `Unavailable` if it can't have been sent, otherwise `Ambiguous`.
//! 4. The only task it spawns is the driver of its connection, which ends when its last user is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delayline_backend_kit::{Connected, Reconnect};
use delayline_core::{Error, ErrorKind, Result, meter};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ProtocolVersion, PushInfo, PushKind, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::failure::{connecting_failed, refused, unavailable};
use super::script::Script;
use crate::RedisConfig;
use crate::limits::NAME;

/// The connection that all calls of a backend use. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    server: String,
    response_timeout: Duration,
    connect_timeout: Duration,
    reconnect: Reconnect<Link>,
    phase: watch::Sender<Phase>,
}

/// One connection, and whether it is known to be broken.
#[derive(Clone, Debug)]
struct Link {
    connection: MultiplexedConnection,
    broken: Arc<AtomicBool>,
}

impl Connected for Link {
    fn works(&self) -> bool {
        !self.broken.load(Ordering::SeqCst)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.broken, &other.broken)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// New calls are refused; calls under way may still be answered.
    Closing,
    /// Calls under way are cancelled.
    Cut,
}

/// Time that calls under way get to finish when the connection is closed.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Maximum number of requests that wait to be written.
const REQUESTS_MAX: usize = 256;

/// Why a request failed.
enum Lost {
    /// It can't have been sent.
    Unsent(Error),
    /// Its answer was lost with the connection, or did not arrive in time.
    Unanswered { in_time: bool, error: Error },
    /// The server refused it.
    Refused(redis::ServerError),
}

impl Connection {
    /// Prepares a connection; the first call opens it.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            // RESP3 reports when the connection ends, so that no request is sent on an ended one.
            client: config.client(ProtocolVersion::RESP3)?,
            server: config.server(),
            response_timeout: config.response_timeout,
            connect_timeout: config.connect_timeout,
            reconnect: Reconnect::new(NAME),
            phase: watch::Sender::new(Phase::Open),
        })))
    }

    /// Runs a script by `EVALSHA`. If the server does not know the script (new server, restart, `SCRIPT FLUSH`), runs
    /// it by `EVAL`.
    ///
    /// # Errors
    /// `Unavailable` if it can't have been sent or the server can't run it now, `Ambiguous` if its answer was lost or
    /// did not arrive in time, `Full` for out of memory, `Denied`, `Closed`, `Corrupt` for another program's data in
    /// the backend's keys or a script that fails, `Incompatible`.
    ///
    /// # Cancel safety
    /// A dropped call may have run the script or not.
    pub(crate) async fn eval(&self, script: &'static Script, keys: &[&[u8]], args: Vec<Vec<u8>>) -> Result<Value> {
        let by_hash = script.command(true, keys, &args);
        match self.send(&by_hash, script.repeatable).await {
            Err(Lost::Refused(e)) if e.kind() == Some(ServerErrorKind::NoScript) => {
                self.eval_text(script, keys, args).await
            }
            answer => answer.map_err(|lost| self.0.error(lost, script.name)),
        }
    }

    /// Runs a script by its text; the server caches it.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub(crate) async fn eval_text(&self, script: &'static Script, keys: &[&[u8]], args: Vec<Vec<u8>>) -> Result<Value> {
        let answer = self.send(&script.command(false, keys, &args), script.repeatable).await;
        answer.map_err(|lost| self.0.error(lost, script.name))
    }

    /// Runs a read-only command.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub(crate) async fn read(&self, name: &str, command: &Cmd) -> Result<Value> {
        self.send(command, true).await.map_err(|lost| self.0.error(lost, name))
    }

    /// Checks that the user may subscribe to a channel, then unsubscribes.
    ///
    /// # Errors
    /// `Denied`, and as [`eval`](Self::eval).
    pub(crate) async fn may_subscribe(&self, channel: &[u8]) -> Result<()> {
        let Link { mut connection, .. } = self.0.reconnect.get(|| self.0.connect()).await?;
        let answer = match connection.subscribe(channel).await {
            Ok(()) => connection.unsubscribe(channel).await,
            refusal => refusal,
        };
        match answer.map_err(redis::ServerError::try_from) {
            Ok(()) => Ok(()),
            Err(Ok(refusal)) => Err(refused(&refusal, "SUBSCRIBE")),
            Err(Err(e)) => Err(self.0.unanswered(&e)),
        }
    }

    /// A counter that changes whenever a connection is lost or does not answer.
    pub(crate) fn troubles(&self) -> watch::Receiver<u64> {
        self.0.reconnect.troubles()
    }

    /// Refuses new calls, gives calls under way half a second to finish, and closes the connection. A second call does
    /// nothing.
    pub(crate) async fn close(&self) {
        self.0.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Open;
            if first {
                *phase = Phase::Closing;
            }
            first
        });
        let guard = Cut(&self.0);
        // Returns when no call is under way.
        let _ = timeout(CLOSE_GRACE, self.0.phase.closed()).await;
        drop(guard);
    }

    async fn send(&self, command: &Cmd, repeatable: bool) -> Result<Value, Lost> {
        let first = self.0.send(command).await;
        match first {
            // Retry on a new connection if this one broke. Don't retry a timeout: the server would probably not answer
            // again.
            Err(Lost::Unanswered { in_time: true, .. }) if repeatable => self.0.send(command).await,
            answer => answer,
        }
    }
}

/// Cancels the remaining calls when `close` ends or is dropped.
struct Cut<'a>(&'a Shared);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.phase.send_replace(Phase::Cut);
        self.0.reconnect.end();
    }
}

impl Shared {
    async fn send(&self, command: &Cmd) -> Result<Value, Lost> {
        let mut phase = self.phase.subscribe();
        let link = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Open) => return Err(Lost::Unsent(closed())),
            link = self.reconnect.get(|| self.connect()) => link.map_err(Lost::Unsent)?,
        };
        let mut connection = link.connection.clone();
        meter::round_trip(NAME);
        let answer = tokio::select! {
            biased;
            answer = connection.send_packed_command(command) => answer,
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => {
                let error = Error::new(ErrorKind::Ambiguous, "the backend was closed before the answer arrived");
                return Err(Lost::Unanswered { in_time: false, error });
            }
        };
        match answer {
            Ok(Value::ServerError(refusal)) => Err(self.refusal(&link, refusal)),
            Ok(value) => Ok(value),
            Err(e) => match redis::ServerError::try_from(e) {
                Ok(refusal) => Err(self.refusal(&link, refusal)),
                Err(e) => {
                    self.give_up(&link);
                    Err(Lost::Unanswered { in_time: !e.is_timeout(), error: self.unanswered(&e) })
                }
            },
        }
    }

    fn refusal(&self, link: &Link, refusal: redis::ServerError) -> Lost {
        // This server became a replica. A new connection may reach the current master.
        if refusal.kind() == Some(ServerErrorKind::ReadOnly) {
            self.give_up(link);
        }
        Lost::Refused(refusal)
    }

    async fn connect(&self) -> Result<Link> {
        let broken = Arc::new(AtomicBool::new(false));
        let ended = {
            let broken = broken.clone();
            move |push: PushInfo| -> Result<(), ()> {
                if push.kind == PushKind::Disconnection {
                    broken.store(true, Ordering::SeqCst);
                }
                Ok(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.response_timeout))
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(REQUESTS_MAX)
            .set_push_sender(ended);
        let opening = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(Link { connection, broken }),
            Ok(Err(e)) => Err(connecting_failed(&self.server, &e)),
            Err(_) => {
                let waited = self.connect_timeout;
                Err(unavailable(format!("{} did not answer within {waited:?} while connecting", self.server)))
            }
        }
    }

    /// Stops using this connection. Other calls may still wait for their answers on it.
    fn give_up(&self, link: &Link) {
        link.broken.store(true, Ordering::SeqCst);
        self.reconnect.give_up(link);
    }

    fn unanswered(&self, e: &redis::RedisError) -> Error {
        if e.is_timeout() {
            let waited = self.response_timeout;
            return Error::new(ErrorKind::Ambiguous, format!("{} did not answer within {waited:?}", self.server));
        }
        let lost = Error::new(
            ErrorKind::Ambiguous,
            format!("the connection to {} was lost before the answer arrived", self.server),
        );
        lost.with_source(e.clone())
    }

    fn error(&self, lost: Lost, doing: &str) -> Error {
        match lost {
            Lost::Unsent(error) => error,
            Lost::Unanswered { error, .. } => error.context(doing),
            Lost::Refused(refusal) => refused(&refusal, doing),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the backend is closed")
}
