//! Finds and removes the namespaces of runs that could not remove them.

#[cfg(feature = "postgres")]
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

#[cfg(feature = "postgres")]
use super::For;
use super::Place;
use super::alive::{ALIVE_FOR, Seen, look};
#[cfg(any(feature = "redis", feature = "postgres", feature = "rabbitmq"))]
use super::is_ours;
use crate::exit::Failure;

/// Longer than a sign of life counts: after this time it is known whether its owner is alive.
const DECIDED: Duration = Duration::from_secs(ALIVE_FOR.as_secs() + 2);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What became of the namespaces that were found.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Left {
    /// The names of those that were removed.
    pub(crate) removed: Vec<String>,
    /// The names of those that a running program uses.
    pub(crate) in_use: Vec<String>,
    /// Those that could not be inspected or removed, each with the reason.
    pub(crate) failed: Vec<Failed>,
}

/// A namespace that is still there.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Failed {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// Removes the namespaces that runs of `conform`, `bench` and `demo` have left at a URL, except those in use.
pub(crate) async fn remove_left(url: &str) -> Result<Left, Failure> {
    let place = Place::at(url).await?;
    let found = found(&place).await?;
    let mut left = Left::default();
    // Reading the signs takes up to a dozen seconds, for all namespaces together.
    let decided = join_all(found.into_iter().map(|(name, known)| {
        let place = &place;
        async move {
            let in_use = match known {
                Some(in_use) => Ok(in_use),
                None => is_in_use(place, &name).await,
            };
            (name, in_use)
        }
    }));
    for (name, in_use) in decided.await {
        // One that belongs to another user does not prevent the removal of the others.
        let removed = match in_use {
            Ok(true) => {
                left.in_use.push(name);
                continue;
            }
            Ok(false) => place.remove(&name).await,
            Err(e) => Err(e),
        };
        match removed {
            Ok(()) => left.removed.push(name),
            Err(e) => left.failed.push(Failed { name, why: e.to_string() }),
        }
    }
    Ok(left)
}

/// The existing namespaces, and whether they are in use, if that is known at once.
async fn found(place: &Place) -> Result<Vec<(String, Option<bool>)>, Failure> {
    Ok(match place {
        Place::Here { .. } => Vec::new(),
        #[cfg(feature = "redis")]
        Place::Redis { config, .. } => unknown(delayline::redis::RedisBackend::namespaces(config).await?),
        #[cfg(feature = "postgres")]
        Place::Postgres { config, .. } => {
            let mut names = Vec::new();
            for command in For::ALL {
                let bytes = command.name().len() + 1 + super::DIGITS;
                names.extend(delayline::postgres::PostgresBackend::namespaces(config, bytes).await?);
            }
            unknown(names)
        }
        #[cfg(feature = "rabbitmq")]
        Place::Rabbit { config } => {
            let known = delayline::rabbitmq::RabbitBackend::namespaces(config.as_ref().clone()).await?;
            known.into_iter().filter(|(name, _)| is_ours(name)).map(|(name, in_use)| (name, Some(in_use))).collect()
        }
        #[cfg(feature = "postgres")]
        Place::Queues { url } => unknown(prefixes(url).await?),
    })
}

/// Those of the names that this program creates. Whether they are in use is not known yet.
#[cfg(any(feature = "redis", feature = "postgres"))]
fn unknown(names: Vec<String>) -> Vec<(String, Option<bool>)> {
    names.into_iter().filter(|name| is_ours(name)).map(|name| (name, None)).collect()
}

/// Our prefixes among the names of queues.
#[cfg(feature = "postgres")]
async fn prefixes(url: &str) -> Result<Vec<String>, Failure> {
    let backend = delayline::connect(url).await?;
    let queues = backend.queues().await?;
    backend.close().await?;
    let prefix = |queue: &delayline::QueueName| {
        let mut parts = queue.as_str().splitn(3, '-');
        Some(format!("{}-{}", parts.next()?, parts.next()?))
    };
    Ok(queues.iter().filter_map(prefix).collect::<BTreeSet<_>>().into_iter().collect())
}

/// Whether the owner shows a sign of life.
async fn is_in_use(place: &Place, name: &str) -> Result<bool, Failure> {
    let backend = place.connect(name).await?;
    let (prefix, begun) = (place.queue_prefix(name), Instant::now());
    let in_use = loop {
        match look(&*backend, &prefix).await? {
            Seen::Ended => break false,
            seen if begun.elapsed() > DECIDED => break seen == Seen::Recently,
            Seen::Recently | Seen::Nothing => sleep(LOOK_EVERY).await,
        }
    };
    backend.close().await?;
    Ok(in_use)
}
