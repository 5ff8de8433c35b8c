//! Namespaces below one of a server: for tests and benchmarks, which work in one of their own and remove it.
//!
//! A namespace is a key prefix. The one below `delayline` that is called `conform-1f2e` has the prefix
//! `delayline:conform-1f2e`, so a user who may use the keys `{delayline:*` may use its keys too.

use std::collections::BTreeSet;

use delayline_core::{Error, ErrorKind, Result};
use redis::{Value, from_redis_value};

use crate::transport::Connection;
use crate::{RedisBackend, RedisConfig, keys};

/// How many keys the server looks at, and is told to remove, at once.
const PAGE: usize = 1_000;

impl RedisConfig {
    /// The key prefix.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.key_prefix
    }

    /// The same server, with the namespace of this name below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        self.clone().key_prefix(format!("{}:{name}", self.key_prefix))
    }
}

impl RedisBackend {
    /// The names of the namespaces below that of the configuration, sorted. Looks through all keys of the database.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn namespaces(config: &RedisConfig) -> Result<Vec<String>> {
        config.check()?;
        let connection = Connection::new(config)?;
        let mut names = BTreeSet::new();
        let prefix = &config.key_prefix;
        let pattern = keys::pattern(prefix);
        let scanned = scan(&connection, &pattern, async |found| {
            names.extend(found.iter().filter_map(|key| keys::namespace_of(prefix, key)));
            Ok(())
        });
        let scanned = scanned.await;
        connection.close().await;
        scanned.map(|()| names.into_iter().collect())
    }

    /// Removes every key of the namespace of this name below that of the configuration, with all tasks and dead letters. Looks
    /// through all keys of the database.
    ///
    /// Nobody should be using it: whoever does makes keys again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable),
    /// [`Ambiguous`](ErrorKind::Ambiguous) for an answer that was lost. Repeated, it goes on with what is left.
    ///
    /// # Cancel safety
    /// Dropped, a part of it may have been removed; repeat it.
    pub async fn remove_namespace(config: &RedisConfig, name: &str) -> Result<()> {
        let config = config.below(name);
        config.check()?;
        let connection = Connection::new(&config)?;
        let pattern = keys::pattern(&config.key_prefix);
        let scanned = scan(&connection, &pattern, async |found| {
            let mut unlink = redis::cmd("UNLINK");
            found.iter().for_each(|key| {
                unlink.arg(key);
            });
            // Repeated after a lost answer, it removes what is left.
            connection.read("UNLINK", &unlink).await.map(drop)
        });
        let scanned = scanned.await;
        connection.close().await;
        scanned
    }
}

/// Hands all keys of a pattern to `each`, page by page.
async fn scan(
    connection: &Connection,
    pattern: &str,
    mut each: impl AsyncFnMut(Vec<Vec<u8>>) -> Result<()>,
) -> Result<()> {
    let mut cursor = 0u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
        let page: Value = connection.read("SCAN", &scan).await?;
        let unreadable = |_| Error::new(ErrorKind::Corrupt, "the answer to SCAN has another shape");
        let (next, found): (u64, Vec<Vec<u8>>) = from_redis_value(page).map_err(unreadable)?;
        if !found.is_empty() {
            each(found).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
