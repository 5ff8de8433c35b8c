//! Creates and migrates the tables, step by step. Each step runs once, however many processes start at the same time.
//!
//! A step and the record that it ran are one transaction, under an advisory lock that ends with the transaction. So a
//! process that dies half way leaves nothing behind.

use std::time::Duration;

use delayline_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::schema::Schema;
use crate::transport::db::Db;
use crate::transport::failure::Effect;

/// The step for each version, in order; the first creates version 1. A released step is never changed.
const STEPS: [&str; 1] = [include_str!("migrations/0001.sql")];

/// Version of the tables that this code works with.
pub(crate) const VERSION: i32 = STEPS.len() as i32;

/// The table that records which steps ran. It is created before the first step.
const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS {s}.migration (
    version int4 PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);";

/// Time limit for all missing steps, including the wait for another process that runs them.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Makes sure that the tables exist in the version of this code. Creates or migrates them if `may_change`.
///
/// # Errors
/// - [`Incompatible`](ErrorKind::Incompatible) for tables of a newer version, and without `may_change` for missing or
///   older tables.
/// - [`Denied`](ErrorKind::Denied) for a user who may not create tables.
pub(crate) async fn migrate(db: &Db, may_change: bool) -> Result<()> {
    let schema = db.schema().clone();
    let found = db.run("looking up the tables", Effect::Read, {
        let schema = schema.clone();
        let named = db.named();
        move |connection| {
            let schema = schema.clone();
            Box::pin(async move { version(connection, &schema, named).await })
        }
    });
    match found.await? {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(too_new(&schema, newer)),
        older if !may_change => Err(too_old(&schema, older)),
        _ => update(db, schema).await,
    }
}

async fn update(db: &Db, schema: Schema) -> Result<()> {
    let named = db.named();
    let updated = db.transact_within("creating the tables", Effect::Repeat, TIME_MAX, move |connection| {
        let schema = schema.clone();
        Box::pin(async move {
            connection.execute(AssertSqlSafe(lock(&schema).as_ref())).await?;
            // Another process may have run the steps while this one waited for the lock.
            let found = version(connection, &schema, named).await?;
            if found < VERSION {
                connection.execute(AssertSqlSafe(begin(&schema, found).as_ref())).await?;
                for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > found) {
                    connection.execute(AssertSqlSafe(one(&schema, version, step).as_ref())).await?;
                }
            }
            Ok(found)
        })
    });
    let found = updated.await.map_err(|e| match e.kind() {
        ErrorKind::Denied => e.context(
            "this user may not create tables: grant it, or have an owner run the output of `delayline schema`",
        ),
        _ => e,
    })?;
    let schema = db.schema();
    if found > VERSION {
        return Err(too_new(schema, found));
    }
    tracing::info!(schema = schema.name(), from = found, to = found.max(VERSION), "the tables are up to date");
    Ok(())
}

/// The version of the existing tables: 0 if there are none.
async fn version(connection: &mut PgConnection, schema: &Schema, named: bool) -> sqlx::Result<i32> {
    // Query the catalog itself: `to_regclass` answers from a cache that may be older than the lock.
    let there = schema.expand(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {name} AND c.relname = 'migration')",
    );
    let there: bool =
        sqlx::query(AssertSqlSafe(there)).persistent(named).fetch_one(&mut *connection).await?.try_get(0)?;
    if !there {
        return Ok(0);
    }
    let version = schema.expand("SELECT coalesce(max(version), 0) FROM {s}.migration");
    sqlx::query(AssertSqlSafe(version)).persistent(named).fetch_one(connection).await?.try_get(0)
}

/// Takes the lock, which waits for other processes. It ends with the transaction.
fn lock(schema: &Schema) -> std::sync::Arc<str> {
    schema.expand(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
         SELECT pg_advisory_xact_lock(hashtext('delayline'), hashtext({name}))",
    )
}

/// Creates the schema unless it exists: a user may own a schema and not be allowed to create another.
fn begin(schema: &Schema, found: i32) -> std::sync::Arc<str> {
    if found > 0 {
        return "".into();
    }
    let make = "DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN CREATE SCHEMA {s}; END IF;
END $$;\n";
    schema.expand(&format!("{make}{VERSIONS}"))
}

fn one(schema: &Schema, version: i32, step: &str) -> std::sync::Arc<str> {
    schema.expand(&format!("{step}\nINSERT INTO {{s}}.migration (version) VALUES ({version});"))
}

/// The SQL, for `psql`, that migrates the tables in a schema from a version to the current one.
pub(crate) fn sql(schema: &str, from: i32) -> Result<String> {
    let schema = Schema::new(schema)?;
    if !(0..=VERSION).contains(&from) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("the version to migrate from must be 0 (no tables) to {VERSION}, is {from}"),
        ));
    }
    let mut text =
        format!("-- The tables of delayline in the schema {}, version {from} to {VERSION}.\n", schema.name());
    text += &schema.expand(
        "-- Run it with psql as their owner. Another user who is to work with them needs:\n\
         --   GRANT USAGE ON SCHEMA {s} TO ...;\n\
         --   GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO ...;\n\
         --   GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {s} TO ...;\n\
         BEGIN;\n",
    );
    text += &lock(&schema);
    text += ";\n";
    text += &begin(&schema, from);
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > from) {
        text += "\n\n";
        text += &one(&schema, version, step);
    }
    text += "\n\nCOMMIT;\n";
    Ok(text)
}

fn too_new(schema: &Schema, found: i32) -> Error {
    let name = schema.name();
    Error::new(
        ErrorKind::Incompatible,
        format!(
            "the tables in schema `{name}` are of version {found}, but this version of delayline supports up to \
             {VERSION}: upgrade delayline"
        ),
    )
}

fn too_old(schema: &Schema, found: i32) -> Error {
    let name = schema.name();
    let there = if found == 0 { "has no tables of delayline".into() } else { format!("has tables of version {found}") };
    Error::new(
        ErrorKind::Incompatible,
        format!(
            "schema `{name}` {there}, version {VERSION} is required and `migrate` is off: run the output of \
             `delayline schema --schema {name} --from {found}`, or set `migrate=on`"
        ),
    )
}
