//! A namespace for one run: `conform`, `bench` and `demo` do all their work on a server in it, and remove it at the
//! end.
//!
//! It is below the URL's namespace, and its name is such that the rights for the URL's namespace suffice: the key
//! prefix `PREFIX:conform-XXXXXXXX` on Redis, the namespace `NAME.conform-XXXXXXXX` on RabbitMQ, the schema
//! `SCHEMA_conform_XXXXXXXX` on Postgres or, for a user who may not create a schema, queues `conform-XXXXXXXX-...` in
//! the given one.
//!
//! While the program runs, it shows a sign of life ([`alive`]; on RabbitMQ a queue that is exclusive to its
//! connection). By that, [`left`] tells namespaces that a `kill -9` has left from those in use.

mod alive;
pub(crate) mod left;

use std::sync::Arc;

use delayline::DelayBackend;
#[cfg(feature = "postgres")]
use delayline::backend::AdminOp;

use self::alive::SignOfLife;
use crate::exit::Failure;
#[cfg(any(feature = "redis", feature = "postgres"))]
use crate::redact::redacted;

/// Hexadecimal digits after the name of the command.
#[cfg(any(test, feature = "redis", feature = "postgres", feature = "rabbitmq"))]
const DIGITS: usize = 8;

/// The commands that create such namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Conform,
    Bench,
    Demo,
}

impl For {
    #[cfg(any(test, feature = "redis", feature = "postgres", feature = "rabbitmq"))]
    const ALL: [Self; 3] = [Self::Conform, Self::Bench, Self::Demo];

    fn name(self) -> &'static str {
        match self {
            Self::Conform => "conform",
            Self::Bench => "bench",
            Self::Demo => "demo",
        }
    }
}

/// Whether a name is one that this program creates.
#[cfg(any(test, feature = "redis", feature = "postgres", feature = "rabbitmq"))]
fn is_ours(name: &str) -> bool {
    let digits = For::ALL.iter().find_map(|command| name.strip_prefix(command.name())?.strip_prefix('-'));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The namespace of one run. [`end`](Self::end) removes it.
pub(crate) struct Scratch {
    name: String,
    place: Place,
    sign: Sign,
}

/// The sign that it is in use.
enum Sign {
    /// None, because no other process can see the namespace.
    None,
    Task(SignOfLife),
    #[cfg(feature = "rabbitmq")]
    Connection(delayline::rabbitmq::HeldNamespace),
}

/// The place of a namespace.
#[derive(Clone)]
pub(crate) enum Place {
    /// In this process; it ends with it.
    Here { url: String },
    #[cfg(feature = "redis")]
    Redis { url: String, config: Box<delayline::redis::RedisConfig> },
    #[cfg(feature = "postgres")]
    Postgres { url: String, config: Box<delayline::postgres::PostgresConfig> },
    #[cfg(feature = "rabbitmq")]
    Rabbit { config: Box<delayline::rabbitmq::RabbitConfig> },
    /// Queues with a prefix, if a namespace is not possible.
    #[cfg(feature = "postgres")]
    Queues { url: String },
}

impl std::fmt::Debug for Scratch {
    /// Without the URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Place {
    /// The place for namespaces at a URL.
    async fn at(url: &str) -> Result<Self, Failure> {
        let url = url.to_owned();
        // Connecting reports an unknown scheme, or one that is not compiled in.
        match url.split(':').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            #[cfg(feature = "redis")]
            "redis" | "rediss" => {
                let config = Box::new(delayline::redis::RedisConfig::from_url(&url)?);
                Ok(Self::Redis { url, config })
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                use delayline::postgres::{PostgresBackend, PostgresConfig};
                let config = Box::new(PostgresConfig::from_url(&url)?);
                match PostgresBackend::may_make_namespaces(&config).await? {
                    true => Ok(Self::Postgres { url, config }),
                    false => Ok(Self::Queues { url }),
                }
            }
            #[cfg(feature = "rabbitmq")]
            "amqp" | "amqps" => {
                let config = Box::new(delayline::rabbitmq::RabbitConfig::from_url(&url)?);
                Ok(Self::Rabbit { config })
            }
            _ => Ok(Self::Here { url }),
        }
    }

    async fn connect(&self, name: &str) -> delayline::Result<Arc<dyn DelayBackend>> {
        let _ = name;
        Ok(match self {
            Self::Here { url } => delayline::connect(url).await?,
            #[cfg(feature = "postgres")]
            Self::Queues { url } => delayline::connect(url).await?,
            #[cfg(feature = "redis")]
            Self::Redis { config, .. } => Arc::new(delayline::redis::RedisBackend::connect(config.below(name)).await?),
            #[cfg(feature = "postgres")]
            Self::Postgres { config, .. } => {
                Arc::new(delayline::postgres::PostgresBackend::connect(config.below(name)).await?)
            }
            #[cfg(feature = "rabbitmq")]
            Self::Rabbit { config } => Arc::new(delayline::rabbitmq::RabbitBackend::connect(config.below(name)).await?),
        })
    }

    /// The prefix of the names of its queues.
    fn queue_prefix(&self, name: &str) -> String {
        let _ = name;
        match self {
            #[cfg(feature = "postgres")]
            Self::Queues { .. } => format!("{name}-"),
            _ => String::new(),
        }
    }

    /// Where it is and how to look at it, for people. `None` if no other process can see it.
    fn shown(&self, name: &str) -> Option<String> {
        let _ = name;
        match self {
            Self::Here { .. } => None,
            #[cfg(feature = "redis")]
            Self::Redis { url, config } => {
                let prefix = config.below(name).namespace_name().to_owned();
                look(format!("the key prefix `{prefix}`"), url, format!("?key_prefix={prefix}"))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres { url, config } => {
                let schema = config.below(name).namespace_name().to_owned();
                look(format!("the schema `{schema}`"), url, format!("?schema={schema}"))
            }
            #[cfg(feature = "rabbitmq")]
            Self::Rabbit { config } => {
                let config = config.below(name);
                let space = config.namespace_name();
                Some(format!("{}; look with: rabbitmqctl list_queues | grep {space}", config.place()))
            }
            #[cfg(feature = "postgres")]
            Self::Queues { url } => {
                let what = format!("queues `{name}-...`, because this user may not create a schema");
                look(what, url, String::new())
            }
        }
    }

    /// Removes a namespace that is no longer in use.
    async fn remove(&self, name: &str) -> Result<(), Failure> {
        let _ = name;
        match self {
            Self::Here { .. } => {}
            #[cfg(feature = "redis")]
            Self::Redis { config, .. } => delayline::redis::RedisBackend::remove_namespace(config, name).await?,
            #[cfg(feature = "postgres")]
            Self::Postgres { config, .. } => {
                delayline::postgres::PostgresBackend::remove_namespace(config, name).await?;
            }
            #[cfg(feature = "rabbitmq")]
            Self::Rabbit { config } => {
                delayline::rabbitmq::RabbitBackend::forget_namespace(config.as_ref().clone(), name).await?;
            }
            #[cfg(feature = "postgres")]
            Self::Queues { url } => remove_queues(url, &self.queue_prefix(name)).await?,
        }
        Ok(())
    }
}

/// Where a namespace is, and the command to look at it during the run.
#[cfg(any(feature = "redis", feature = "postgres"))]
fn look(what: String, url: &str, option: String) -> Option<String> {
    let url = redacted(url);
    Some(format!("{what}; look with: delayline watch --backend '{url}{option}'"))
}

/// Deletes the queues whose names have a prefix, one by one.
#[cfg(feature = "postgres")]
async fn remove_queues(url: &str, prefix: &str) -> Result<(), Failure> {
    let backend = delayline::connect(url).await?;
    for queue in backend.queues().await? {
        if queue.as_str().starts_with(prefix) {
            backend.administer(&queue, AdminOp::Delete).await?;
        }
    }
    backend.close().await?;
    Ok(())
}

impl Scratch {
    /// Creates the namespace for a command, and shows that it is in use.
    pub(crate) async fn make(url: &str, command: For) -> Result<Self, Failure> {
        let place = Place::at(url).await?;
        let name = format!("{}-{:08x}", command.name(), fastrand::u32(..));
        let sign = match &place {
            Place::Here { .. } => Sign::None,
            #[cfg(feature = "rabbitmq")]
            Place::Rabbit { config } => {
                Sign::Connection(delayline::rabbitmq::RabbitBackend::hold_namespace(config.below(&name)).await?)
            }
            #[allow(unreachable_patterns, reason = "no such backend may be compiled in")]
            _ => {
                let backend = place.connect(&name).await?;
                match SignOfLife::show(backend, &place.queue_prefix(&name)).await {
                    Ok(sign) => Sign::Task(sign),
                    Err(e) => {
                        // Removes what connecting has created. An error here has the same cause as the first one.
                        let _ = place.remove(&name).await;
                        return Err(e);
                    }
                }
            }
        };
        Ok(Self { name, place, sign })
    }

    /// A client that works in the namespace.
    pub(crate) async fn connect(&self) -> delayline::Result<Arc<dyn DelayBackend>> {
        self.opener().connect().await
    }

    /// The part that connects, for users that outlive a borrow of this.
    pub(crate) fn opener(&self) -> Opener {
        Opener { name: self.name.clone(), place: self.place.clone() }
    }

    /// The prefix that names of queues must have. It is empty, except if a namespace is not possible.
    pub(crate) fn queue_prefix(&self) -> String {
        self.place.queue_prefix(&self.name)
    }

    /// Where it is and how to look at it, for people. `None` if no other process can see it.
    pub(crate) fn shown(&self) -> Option<String> {
        self.place.shown(&self.name)
    }

    /// Removes the namespace with everything in it. All work there must have ended.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        let Self { name, place, sign } = self;
        let removed = match sign {
            Sign::None => Ok(()),
            Sign::Task(sign) => {
                sign.end().await;
                place.remove(&name).await
            }
            #[cfg(feature = "rabbitmq")]
            Sign::Connection(held) => held.remove().await.map_err(Failure::from),
        };
        removed.map_err(|e| {
            Failure::new(format!("{e}; `delayline conform --remove-left` removes what is left of `{name}`"))
        })
    }

    /// Keeps the namespace, no longer in use.
    pub(crate) async fn keep(self) {
        match self.sign {
            Sign::None => {}
            Sign::Task(sign) => sign.end().await,
            #[cfg(feature = "rabbitmq")]
            Sign::Connection(held) => drop(held),
        }
    }
}

/// Opens clients in a namespace.
#[derive(Clone)]
pub(crate) struct Opener {
    name: String,
    place: Place,
}

impl Opener {
    pub(crate) async fn connect(&self) -> delayline::Result<Arc<dyn DelayBackend>> {
        self.place.connect(&self.name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_made_here_are_told_from_others() {
        for ours in ["conform-00000000", "bench-1f2e3d4c", "demo-ffffffff"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in
            ["conform", "conform-", "conform-1f2e", "conform-1f2e3d4g", "bench-1f2e3d4c5", "exams-1f2e3d4c", ""]
        {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[tokio::test]
    async fn in_this_process_there_is_nothing_to_remove() {
        let scratch = Scratch::make("memory:", For::Conform).await.unwrap();
        assert_eq!((scratch.shown(), scratch.queue_prefix().as_str()), (None, ""));
        scratch.connect().await.unwrap();
        scratch.end().await.unwrap();
    }
}
