//! Lists and removes namespaces below a namespace. Tests and benchmarks work in such a namespace and remove it.
//!
//! A namespace is a schema. The namespace `conform-1f2e` below `delayline` is the schema `delayline_conform_1f2e`. A
//! user who may not create schemas can't use such namespaces.

use std::time::Duration;

use delayline_core::Result;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::backend::PostgresBackend;
use crate::config::PostgresConfig;
use crate::schema::{NAME_BYTES_MAX, Schema};
use crate::transport::db::Db;
use crate::transport::failure::Effect;

/// Time limit for dropping a schema with many rows.
const REMOVE_MAX: Duration = Duration::from_secs(300);

impl PostgresConfig {
    /// The namespace: the schema.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.schema
    }

    /// The same configuration, for the namespace `name` below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let schema = format!("{}{}", stem(&self.schema, name.len()), name.replace('-', "_"));
        self.clone().schema(schema)
    }
}

/// The beginning of the names of the schemas below a schema: as much of its name as leaves `room` bytes for theirs.
fn stem(schema: &str, room: usize) -> String {
    let kept: String = schema.chars().take(NAME_BYTES_MAX.saturating_sub(room + 1)).collect();
    kept + "_"
}

impl PostgresBackend {
    /// Returns whether this user may create schemas in the database, and the configuration allows the creation of
    /// tables.
    ///
    /// # Errors
    /// Those of a connection: [`Config`](delayline_core::ErrorKind::Config),
    /// [`Denied`](delayline_core::ErrorKind::Denied), [`Unavailable`](delayline_core::ErrorKind::Unavailable).
    pub async fn may_make_namespaces(config: &PostgresConfig) -> Result<bool> {
        if !config.migrate {
            return Ok(false);
        }
        let db = Db::new(config)?;
        let named = db.named();
        let asked = db.run("checking permissions", Effect::Read, move |connection| {
            Box::pin(async move {
                let may = "SELECT has_database_privilege(current_database(), 'CREATE')";
                sqlx::query(may).persistent(named).fetch_one(connection).await?.try_get(0)
            })
        });
        let may = asked.await;
        db.close().await;
        may
    }

    /// Lists the namespaces below that of the configuration whose names have `name_bytes` bytes and that contain
    /// delayline's tables, sorted by name.
    ///
    /// # Errors
    /// As for [`may_make_namespaces`](Self::may_make_namespaces).
    pub async fn namespaces(config: &PostgresConfig, name_bytes: usize) -> Result<Vec<String>> {
        let db = Db::new(config)?;
        let (named, stem) = (db.named(), stem(&config.schema, name_bytes));
        let length = i32::try_from(stem.len() + name_bytes).unwrap_or(i32::MAX);
        let asked = db.run("looking for schemas", Effect::Read, {
            let stem = stem.clone();
            move |connection| {
                let stem = stem.clone();
                Box::pin(async move {
                    let sql = "SELECT n.nspname::text FROM pg_catalog.pg_namespace n \
                               WHERE starts_with(n.nspname::text, $1) AND length(n.nspname::text) = $2 \
                                 AND EXISTS (SELECT FROM pg_catalog.pg_class c \
                                             WHERE c.relnamespace = n.oid AND c.relname = 'migration') ORDER BY 1";
                    let rows = sqlx::query(sql).persistent(named).bind(stem).bind(length).fetch_all(connection).await?;
                    rows.iter().map(|row| row.try_get::<String, _>(0)).collect()
                })
            }
        });
        let schemas: Result<Vec<String>> = asked.await;
        db.close().await;
        Ok(schemas?.iter().filter_map(|schema| Some(schema.strip_prefix(&stem)?.replace('_', "-"))).collect())
    }

    /// Removes the namespace `name` below that of the configuration: drops its schema with all tasks and dead letters.
    ///
    /// Stop all clients of the namespace first: their calls fail afterwards.
    ///
    /// # Errors
    /// As for [`may_make_namespaces`](Self::may_make_namespaces), and
    /// [`Ambiguous`](delayline_core::ErrorKind::Ambiguous) for a lost answer.
    ///
    /// # Cancel safety
    /// A dropped call goes on in the background.
    pub async fn remove_namespace(config: &PostgresConfig, name: &str) -> Result<()> {
        let db = Db::new(config)?;
        let schema: Schema = config.below(name).check()?;
        let removed = db.transact_within("removing a schema", Effect::Repeat, REMOVE_MAX, move |connection| {
            let sql = schema.expand("SET LOCAL statement_timeout = 0; DROP SCHEMA IF EXISTS {s} CASCADE");
            Box::pin(async move { connection.execute(AssertSqlSafe(sql.as_ref())).await.map(drop) })
        });
        let removed = removed.await;
        db.close().await;
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_below_has_a_name_of_its_own_that_fits() {
        let of = |schema: &str| {
            let config = PostgresConfig::from_url("postgres://host").unwrap().schema(schema);
            config.below("conform-0a1b2c3d").namespace_name().to_owned()
        };
        assert_eq!(of("delayline"), "delayline_conform_0a1b2c3d");
        let long = of(&"x".repeat(NAME_BYTES_MAX));
        assert!(long.len() == NAME_BYTES_MAX && long.ends_with("x_conform_0a1b2c3d"), "{long}");
        Schema::new(&long).unwrap();
    }
}
