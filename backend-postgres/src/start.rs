//! Checks before the first call: whether this backend can keep its promises on this server.

use std::time::Duration;

use delayline_backend_kit::Ids;
use delayline_core::{Durability, Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Row};
use tokio::time::timeout;

use crate::config::PostgresConfig;
use crate::config::server::place;
use crate::migrate::migrate;
use crate::notify::channels::{Notifier, notifier};
use crate::notify::connection::ListenConnection;
use crate::transport::db::Db;
use crate::transport::failure::{Effect, failed};

/// The oldest supported version.
const OLDEST: i32 = 14;

/// A database that passed the checks.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) notifier: Notifier,
    /// What an accepted task survives, given the server's settings and `flush_accepting`.
    pub(crate) durability: Durability,
}

/// Connects, checks the server, creates, migrates or checks the tables, and checks the permissions of this user.
///
/// # Errors
/// - [`Denied`](ErrorKind::Denied) for a wrong password, and for missing permissions. The error names them.
/// - [`Config`](ErrorKind::Config) for a database that does not exist, and if LISTEN does not work.
/// - [`Incompatible`](ErrorKind::Incompatible) for a server that is not Postgres, is too old, is a standby or is
///   read-only, and for tables of another version.
/// - [`Unavailable`](ErrorKind::Unavailable).
pub(crate) async fn open(config: &PostgresConfig) -> Result<Opened> {
    let db = Db::new(config)?;
    let notifier = notifier(config, db.schema().clone(), db.troubles());
    match check(&db, config).await {
        Ok(durability) => Ok(Opened { db, notifier, durability }),
        Err(e) => {
            db.close().await;
            Err(e)
        }
    }
}

async fn check(db: &Db, config: &PostgresConfig) -> Result<Durability> {
    let here = |e: Error| if e.message().contains(db.place()) { e } else { e.context(db.place()) };
    let server = look(db).await.map_err(here)?;
    server.check().map_err(here)?;
    migrate(db, config.migrate).await.map_err(here)?;
    check_rights(db, &server.user).await.map_err(here)?;
    if let Some(at) = config.listens_at() {
        check_listening(db, &at, config).await?;
    }
    let kept = server.keeps && config.flush.accepting;
    if !server.keeps {
        tracing::warn!(
            server = db.place(),
            "a crash of the server's machine loses tasks: `fsync` or `full_page_writes` is off, turn both on"
        );
    }
    Ok(if kept { Durability::Disk } else { Durability::Server })
}

/// Properties of the server.
#[derive(Debug, Clone)]
struct Server {
    version: String,
    number: i32,
    standby: bool,
    read_only: bool,
    /// Whether commits survive a crash of the server.
    keeps: bool,
    user: String,
}

async fn look(db: &Db) -> Result<Server> {
    const SQL: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::int4, \
        pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
        current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on', current_user::text";
    let named = db.named();
    let read = |row: PgRow| {
        Ok(Server {
            version: row.try_get(0)?,
            number: row.try_get(1)?,
            standby: row.try_get(2)?,
            read_only: row.try_get(3)?,
            keeps: row.try_get(4)?,
            user: row.try_get(5)?,
        })
    };
    db.run("checking the server", Effect::Read, move |connection| {
        Box::pin(async move { sqlx::query(SQL).persistent(named).fetch_one(connection).await.and_then(read) })
    })
    .await
}

impl Server {
    fn check(&self) -> Result<()> {
        if self.number < OLDEST * 10_000 {
            let version = &self.version;
            return Err(incompatible(format!(
                "PostgreSQL {OLDEST} or newer required: the server is PostgreSQL {version}"
            )));
        }
        if self.standby {
            return Err(incompatible("the server is a read-only standby: connect to its primary"));
        }
        if self.read_only {
            return Err(incompatible("the server is read-only: `transaction_read_only` is on"));
        }
        Ok(())
    }
}

/// Checks all permissions that calls need. It looks them up and does not try them.
async fn check_rights(db: &Db, user: &str) -> Result<()> {
    const SQL: &str = "SELECT coalesce(string_agg(missing, ', ' ORDER BY missing), '') FROM (\
          SELECT 'USAGE on the schema ' || n.nspname AS missing FROM pg_namespace n \
          WHERE n.nspname = {name} AND NOT has_schema_privilege(n.oid, 'USAGE') \
        UNION ALL \
          SELECT r || ' on ' || n.nspname || '.' || c.relname \
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
               unnest(CASE c.relkind WHEN 'S' THEN ARRAY['USAGE'] ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) r \
          WHERE n.nspname = {name} AND c.relkind IN ('r', 'S') AND c.relname <> 'migration' \
            AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, r) \
                    ELSE has_table_privilege(c.oid, r) END) AS missing";
    let sql = db.schema().expand(SQL);
    let named = db.named();
    let missing: String = db
        .run("checking permissions", Effect::Read, move |connection| {
            let sql = sql.clone();
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(sql)).persistent(named).fetch_one(connection).await?.try_get(0)
            })
        })
        .await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, format!("user `{user}` needs {missing}")))
}

/// Checks that a notification sent on one connection arrives on another. Through a pooler, it does not.
async fn check_listening(db: &Db, at: &PgConnectOptions, config: &PostgresConfig) -> Result<()> {
    let at_place = place(at);
    let mut connection =
        ListenConnection::open(at, config.connect_timeout).await.map_err(|e| e.context("listening"))?;
    if hears(db, &mut connection, config.response_timeout.min(LISTEN_MAX)).await.map_err(|e| e.context("listening"))? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "{at_place}: LISTEN does not receive what NOTIFY sends, because of a pooler, or because `listen_url` is \
             another server: set `pooler=on`, and set `listen_url` to the server itself or `listen=off`"
        ),
    ))
}

/// Time limit for the notification to arrive.
const LISTEN_MAX: Duration = Duration::from_secs(5);

async fn hears(db: &Db, connection: &mut ListenConnection, limit: Duration) -> Result<bool> {
    // A channel that no other call uses.
    let channel = format!("{}.#{:016x}", db.schema().name(), Ids::new().positive());
    let hearing = async {
        let failed = |e| failed("LISTEN", Effect::Read, e);
        connection.listener().listen(&channel).await.map_err(failed)?;
        notify(db, channel.clone()).await?;
        while let Some(heard) = connection.listener().try_recv().await.map_err(failed)? {
            if heard.channel() == channel {
                return Ok(true);
            }
        }
        Ok(false)
    };
    timeout(limit, hearing).await.unwrap_or(Ok(false))
}

async fn notify(db: &Db, channel: String) -> Result<()> {
    let named = db.named();
    db.run("NOTIFY", Effect::Repeat, move |connection| {
        let channel = channel.clone();
        Box::pin(async move {
            sqlx::query("SELECT pg_notify($1, '')").persistent(named).bind(channel).execute(connection).await.map(drop)
        })
    })
    .await
}

fn incompatible(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Incompatible, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_5_each_reason_not_to_start_is_told() {
        let good = Server {
            version: "15.4 (Debian)".into(),
            number: 150_004,
            standby: false,
            read_only: false,
            keeps: true,
            user: "me".into(),
        };
        good.check().unwrap();
        for (server, says) in [
            (Server { number: 130_011, version: "13.11".into(), ..good.clone() }, "14 or newer"),
            (Server { standby: true, read_only: true, ..good.clone() }, "standby"),
            (Server { read_only: true, ..good }, "`transaction_read_only` is on"),
        ] {
            let e = server.check().unwrap_err();
            assert!(e.kind() == ErrorKind::Incompatible && e.message().contains(says), "{e}");
        }
    }
}
