//! A store under measurement: a URL, or a private server that is started for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use delayline::{AdminOp, DelayBackend, QueueName, Support};
use delayline_conformance::servers::{Kind, Postgres, Rabbit, Redis, Release, Server, ServerError};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::args::Spawn;
use super::redact::redacted;
use super::report::Backend;
use crate::demo::heap;
use crate::exit::Failure;

/// What is not cleared away by then is left; the reader is told.
const CLEAR_PATIENCE: Duration = Duration::from_secs(60);
/// RabbitMQ deletes no single queue, so all of them are made in a name space that can be removed.
const NAME_SPACE: &str = "delayline-bench";

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Url(String),
    Spawned(Spawn),
}

/// A store that is connected.
pub(super) struct Store {
    pub(super) backend: Arc<dyn DelayBackend>,
    pub(super) shown: Backend,
    url: String,
    server: Option<Arc<Private>>,
    /// Whether the name space in the URL is ours alone.
    own_space: bool,
    /// Queues that were made here and not removed yet.
    queues: Mutex<Vec<QueueName>>,
}

impl std::fmt::Debug for Store {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("name", &self.shown.name).finish_non_exhaustive()
    }
}

/// A private server.
#[derive(Debug)]
enum Private {
    Redis(Redis),
    Postgres(Postgres),
    Rabbit(Rabbit),
}

impl Store {
    /// Starts the server, if there is one to start, and connects.
    pub(super) async fn open(wanted: &Wanted) -> Result<Self, Failure> {
        let (url, server) = match wanted {
            Wanted::Url(url) => (url.clone(), None),
            Wanted::Spawned(spawn) => {
                let spawn = *spawn;
                let started = spawn_blocking(move || Private::start(spawn)).await;
                let server = started.map_err(|e| Failure::new(format!("starting {spawn:?}: {e}")))?;
                let server = Arc::new(server.map_err(|e| Failure::new(e.to_string()))?);
                (server.server().url(), Some(server))
            }
        };
        let (url, own_space) = with_name_space(url);
        let backend = delayline::connect(&url).await?;
        backend.ping().await?;
        let version = server.as_ref().map(|server| server.server().version().to_owned());
        let shown = Backend::new(backend.capabilities(), redacted(&url), version, server.is_some());
        Ok(Self { backend, shown, url, server, own_space, queues: Mutex::default() })
    }

    /// The first process of the server, where it is ours.
    pub(super) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.server().pid())
    }

    /// Whether the tasks are in this process.
    pub(super) fn is_here(&self) -> bool {
        self.url.starts_with("memory:")
    }

    /// How many bytes the store takes, as it tells itself: Redis its memory, Postgres its database on the disk, RabbitMQ all
    /// memory of its node, and a store in this process the heap. `None` where that can't be asked.
    pub(super) async fn bytes(&self) -> Option<f64> {
        if self.is_here() {
            return Some(heap::live() as f64);
        }
        self.ask(|server| match server {
            Private::Redis(redis) => number(redis.ask("INFO memory").ok()?.lines(), "used_memory:"),
            Private::Postgres(postgres) => {
                postgres.ask("SELECT pg_database_size(current_database())").ok()?.trim().parse().ok()
            }
            Private::Rabbit(rabbit) => rabbit.control(&["eval", "erlang:memory(total)."]).ok()?.trim().parse().ok(),
        })
        .await
    }

    /// How many commands (Redis) or transactions (Postgres) the server has done so far.
    pub(super) async fn commands(&self) -> Option<f64> {
        self.ask(|server| match server {
            Private::Redis(redis) => number(redis.ask("INFO stats").ok()?.lines(), "total_commands_processed:"),
            Private::Postgres(postgres) => {
                let all =
                    "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = current_database()";
                postgres.ask(all).ok()?.trim().parse().ok()
            }
            Private::Rabbit(_) => None,
        })
        .await
    }

    async fn ask(&self, what: impl FnOnce(&Private) -> Option<f64> + Send + 'static) -> Option<f64> {
        let server = self.server.clone()?;
        spawn_blocking(move || what(&server)).await.ok().flatten()
    }

    /// A queue is about to be used, and is removed at the end if not before.
    pub(super) fn uses(&self, queue: &QueueName) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).push(queue.clone());
    }

    /// Removes a queue with what a run has left in it.
    pub(super) async fn clear(&self, queue: &QueueName) -> Result<(), Failure> {
        if self.backend.capabilities().delete != Support::Unsupported {
            self.backend.administer(queue, AdminOp::Delete).await?;
        }
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != queue);
        Ok(())
    }

    /// Removes the queues of runs that broke off, on a server that stays.
    async fn clear_all(&self) -> Result<(), Failure> {
        let left = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for queue in left.iter().filter(|_| self.server.is_none()) {
            self.clear(queue).await?;
        }
        Ok(())
    }

    /// Removes what is left, ends the connection, and ends the server.
    pub(super) async fn close(self) -> Result<(), Failure> {
        let cleared = timeout(CLEAR_PATIENCE, self.clear_all()).await;
        let cleared = cleared.unwrap_or_else(|_| Err(Failure::new("queues `bench-...` could not be removed in time")));
        let Self { backend, url, server, own_space, .. } = self;
        let closed = backend.close().await;
        drop(backend);
        // What is on a private server goes with it.
        if own_space && server.is_none() {
            let removed = timeout(CLEAR_PATIENCE, remove_name_space(&url)).await;
            removed
                .map_err(|_| Failure::new(format!("the name space `{NAME_SPACE}` could not be removed in time")))??;
        }
        // It waits for processes to end.
        let _ = spawn_blocking(move || drop(server)).await;
        closed?;
        cleared
    }
}

impl Private {
    fn start(spawn: Spawn) -> Result<Self, ServerError> {
        Ok(match spawn {
            Spawn::Redis => Self::Redis(Redis::start(&Release::chosen(Kind::Redis)?, &[])?),
            Spawn::Postgres => Self::Postgres(Postgres::start(&Release::chosen(Kind::Postgres)?, &[])?),
            Spawn::Rabbitmq => Self::Rabbit(Rabbit::start(&Release::chosen(Kind::RabbitMq)?, &[])?),
        })
    }

    fn server(&self) -> &dyn Server {
        match self {
            Self::Redis(redis) => redis,
            Self::Postgres(postgres) => postgres,
            Self::Rabbit(rabbit) => rabbit,
        }
    }
}

/// The number after a prefix, in the first line that has it.
fn number<'a>(mut lines: impl Iterator<Item = &'a str>, prefix: &str) -> Option<f64> {
    lines.find_map(|line| line.strip_prefix(prefix))?.trim().parse().ok()
}

/// A URL of RabbitMQ with a name space of ours, unless it names one.
fn with_name_space(url: String) -> (String, bool) {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !matches!(scheme.as_str(), "amqp" | "amqps") || url.contains("name_space=") {
        return (url, false);
    }
    let joint = if url.contains('?') { '&' } else { '?' };
    (format!("{url}{joint}name_space={NAME_SPACE}"), true)
}

#[cfg(feature = "rabbitmq")]
async fn remove_name_space(url: &str) -> Result<(), Failure> {
    use delayline::rabbitmq::{RabbitBackend, RabbitConfig};
    Ok(RabbitBackend::remove_namespace(RabbitConfig::from_url(url)?).await?)
}

#[cfg(not(feature = "rabbitmq"))]
async fn remove_name_space(_url: &str) -> Result<(), Failure> {
    // Such a URL could not be connected to.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmq_gets_a_name_space_that_can_be_removed() {
        let ours = |url: &str| with_name_space(url.to_owned());
        assert_eq!(ours("amqp://h/%2f"), ("amqp://h/%2f?name_space=delayline-bench".into(), true));
        assert_eq!(ours("amqps://h/v?parallel=4"), ("amqps://h/v?parallel=4&name_space=delayline-bench".into(), true));
        for url in ["amqp://h/v?name_space=exams", "redis://h", "memory:"] {
            assert_eq!(ours(url), (url.to_owned(), false));
        }
    }

    #[test]
    fn numbers_are_found() {
        let info = "# Memory\r\nused_memory:1234\r\nused_memory_rss:9999\r\n";
        assert_eq!(number(info.lines(), "used_memory:"), Some(1234.0));
        assert_eq!(number(info.lines(), "nothing:"), None);
    }
}
