//! A store under measurement: a URL, or a private server that is started for it.

use std::sync::Arc;
use std::time::Duration;

use delayline::backend::AdminOp;
use delayline::{DelayBackend, QueueName, Support};
use delayline_conformance::servers::{Kind, Postgres, Rabbit, Redis, Release, Server, ServerError};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::args::Spawn;
use super::report::Backend;
use crate::exit::Failure;
use crate::heap;
use crate::redact::redacted;
use crate::scratch::{For, Scratch};

/// Time limit for removing what a run has left; the user is told about the rest.
const CLEAR_PATIENCE: Duration = Duration::from_secs(60);

/// A requested store.
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
    /// The namespace, on a server that was not started here.
    scratch: Option<Scratch>,
}

impl std::fmt::Debug for Store {
    /// Without the URL, which may contain a password.
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
    /// Starts the private server, if one is requested, and connects.
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
        let (backend, scratch) = match server {
            Some(_) => (delayline::connect(&url).await?, None),
            None => {
                let scratch = Scratch::make(&url, For::Bench).await?;
                match scratch.connect().await {
                    Ok(backend) => (backend, Some(scratch)),
                    Err(e) => {
                        scratch.end().await?;
                        return Err(e.into());
                    }
                }
            }
        };
        let version = server.as_ref().map(|server| server.server().version().to_owned());
        let shown = Backend::new(backend.capabilities(), redacted(&url), version, server.is_some());
        Ok(Self { backend, shown, url, server, scratch })
    }

    /// The first process of a private server.
    pub(super) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.server().pid())
    }

    /// Whether the tasks are in this process.
    pub(super) fn is_here(&self) -> bool {
        self.url.starts_with("memory:")
    }

    /// Bytes that the store occupies, by its own count: Redis' memory, the size of Postgres' database on disk, all
    /// memory of RabbitMQ's node, and for a store in this process the heap. `None` if the store can't be asked.
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

    /// The prefix that names of queues must have.
    pub(super) fn queue_prefix(&self) -> String {
        self.scratch.as_ref().map(Scratch::queue_prefix).unwrap_or_default()
    }

    /// Where it works on a server that was not started here, and how to look at it, for people.
    pub(super) fn place(&self) -> Option<String> {
        self.scratch.as_ref().and_then(Scratch::shown)
    }

    /// Removes a queue with what a run has left in it.
    pub(super) async fn clear(&self, queue: &QueueName) -> Result<(), Failure> {
        if self.backend.capabilities().delete != Support::Unsupported {
            self.backend.administer(queue, AdminOp::Delete).await?;
        }
        Ok(())
    }

    /// Closes the connection, and stops a private server; on another server, removes what is left.
    pub(super) async fn close(self) -> Result<(), Failure> {
        let Self { backend, server, scratch, .. } = self;
        let closed = backend.close().await;
        drop(backend);
        if let Some(scratch) = scratch {
            let removed = timeout(CLEAR_PATIENCE, scratch.end()).await;
            removed.map_err(|_| {
                Failure::new("could not remove the namespace in time; remove it with `delayline conform --remove-left`")
            })??;
        }
        // It waits for processes to end.
        let _ = spawn_blocking(move || drop(server)).await;
        closed.map_err(Failure::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        let info = "# Memory\r\nused_memory:1234\r\nused_memory_rss:9999\r\n";
        assert_eq!(number(info.lines(), "used_memory:"), Some(1234.0));
        assert_eq!(number(info.lines(), "nothing:"), None);
    }
}
