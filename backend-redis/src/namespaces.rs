//! Lists and removes namespaces below a namespace. Tests and benchmarks work in such a namespace and remove it.
//!
//! A namespace is a key prefix. The namespace `conform-1f2e` below `delayline` has the prefix `delayline:conform-1f2e`,
//! so a user with access to the keys `{delayline:*` also has access to its keys.

use std::collections::BTreeSet;

use delayline_core::{Error, ErrorKind, Result};
use redis::{Value, from_redis_value};

use crate::transport::Connection;
use crate::{RedisBackend, RedisConfig, keys};

/// Maximum number of keys that the server scans or removes in one command.
const PAGE: usize = 1_000;

impl RedisConfig {
    /// The namespace: the key prefix.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.key_prefix
    }

    /// The same configuration, for the namespace `name` below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        self.clone().key_prefix(format!("{}:{name}", self.key_prefix))
    }
}

impl RedisBackend {
    /// Lists the namespaces below that of the configuration, sorted by name. Scans all keys of the database.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Safe to drop: this only reads.
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

    /// Removes the namespace `name` below that of the configuration, with all its keys, tasks and dead letters. Scans
    /// all keys of the database.
    ///
    /// Stop all clients of the namespace first: a running client creates keys again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), [`Denied`](ErrorKind::Denied), [`Unavailable`](ErrorKind::Unavailable), and
    /// [`Ambiguous`](ErrorKind::Ambiguous) for a lost answer. A repeated call removes what is left.
    ///
    /// # Cancel safety
    /// A dropped call may have removed a part of the namespace. Repeat it.
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
            // A retry after a lost answer removes the rest.
            connection.read("UNLINK", &unlink).await.map(drop)
        });
        let scanned = scanned.await;
        connection.close().await;
        scanned
    }
}

/// Calls `each` with all keys that match a pattern, page by page.
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
        let unreadable = |_| Error::new(ErrorKind::Corrupt, "unexpected reply to SCAN");
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
