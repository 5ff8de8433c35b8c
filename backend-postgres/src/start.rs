//! What is checked before the first call: that the server is one that this backend can keep its promises on.

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

/// The oldest version.
const OLDEST: i32 = 14;

/// A database that was found fit.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) notifier: Notifier,
    /// What an accepted task survives, as the server is set up and as `flush_accepting` is.
    pub(crate) durability: Durability,
}

/// Connects, checks the server, makes or checks the tables, and checks that this user may do what is needed.
///
/// # Errors
/// [`Denied`](ErrorKind::Denied) for a wrong password, and for a right that is missing, which is named;
/// [`Config`](ErrorKind::Config) for a database that is not there, and where LISTEN does not work;
/// [`Incompatible`](ErrorKind::Incompatible) for what is no Postgres, too old, a standby or read-only, and for tables of
/// another version; [`Unavailable`](ErrorKind::Unavailable).
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
        tracing::warn!(server = db.place(), "`fsync` or `full_page_writes` is off: a crash of the machine loses tasks");
    }
    Ok(if kept { Durability::Disk } else { Durability::Server })
}

/// What the server is.
#[derive(Debug, Clone)]
struct Server {
    version: String,
    number: i32,
    standby: bool,
    read_only: bool,
    /// Whether what it has committed survives its crash.
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
    db.run("looking at the server", Effect::Read, move |connection| {
        Box::pin(async move { sqlx::query(SQL).persistent(named).fetch_one(connection).await.and_then(read) })
    })
    .await
}

impl Server {
    fn check(&self) -> Result<()> {
        if self.number < OLDEST * 10_000 {
            let version = &self.version;
            return Err(incompatible(format!("it is PostgreSQL {version}; {OLDEST} or newer is needed")));
        }
        if self.standby {
            return Err(incompatible("it is a standby, which takes no writes; connect to its primary"));
        }
        if self.read_only {
            return Err(incompatible("it takes no writes: `transaction_read_only` is on"));
        }
        Ok(())
    }
}

/// Every right that a call needs, looked up rather than tried out.
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
        .run("looking at our rights", Effect::Read, move |connection| {
            let sql = sql.clone();
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(sql)).persistent(named).fetch_one(connection).await?.try_get(0)
            })
        })
        .await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, format!("its user `{user}` lacks {missing}")))
}

/// Whether what is sent on one connection is heard on another, as it is not through a pooler.
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
            "{at_place}: what NOTIFY sends is not heard by LISTEN, so there is a pooler in between, or another server; set \
             `pooler=on`, and `listen_url` to the server itself or `listen=off`"
        ),
    ))
}

/// How long it may take until what was sent is heard.
const LISTEN_MAX: Duration = Duration::from_secs(5);

async fn hears(db: &Db, connection: &mut ListenConnection, limit: Duration) -> Result<bool> {
    // A channel of this call alone.
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
