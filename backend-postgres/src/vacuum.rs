//! Runs VACUUM: a queue's rows are short-lived, and the dead rows they leave slow down later claims.
//!
//! Autovacuum also removes dead rows, but it checks only once a minute, and may be busy or off. So a process that has
//! made many dead rows runs VACUUM itself, one process at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::transport::db::Db;
use crate::transport::statement::as_work;

/// Number of dead rows that this process leaves before it runs VACUUM.
const DEAD_ROWS: u64 = 100_000;

/// Time limit of one VACUUM.
const LIMIT: Duration = Duration::from_secs(600);

/// Counts the dead rows that this process leaves in a database.
#[derive(Debug)]
pub(crate) struct Vacuum {
    db: Db,
    /// False behind a pooler: it runs each statement in another session, so the lock for one process at a time does not
    /// work.
    possible: bool,
    /// Rows that were deleted or moved since the last attempt to run VACUUM.
    dead_rows: AtomicU64,
    /// The number of dead rows at which it runs VACUUM.
    pub(crate) dead_rows_max: u64,
}

impl Vacuum {
    pub(crate) fn new(db: Db, possible: bool) -> Self {
        Self { db, possible, dead_rows: AtomicU64::new(0), dead_rows_max: DEAD_ROWS }
    }

    /// Counts rows that were deleted or moved, each of which leaves a dead row. Runs VACUUM when there are many.
    pub(crate) fn left_dead(&self, rows: u64) {
        if rows == 0 || self.dead_rows.fetch_add(rows, Ordering::Relaxed) + rows < self.dead_rows_max {
            return;
        }
        if !self.possible || self.dead_rows.swap(0, Ordering::Relaxed) < self.dead_rows_max {
            return;
        }
        let db = self.db.clone();
        let task = db.schema().expand("{s}.task");
        tokio::spawn(async move {
            let work = as_work(move |connection| {
                let task: Arc<str> = Arc::clone(&task);
                async move { vacuum(connection, &task).await }.boxed()
            });
            if let Err(e) = db.maintain("vacuum", LIMIT, work).await {
                tracing::debug!(error = %e, "VACUUM failed, autovacuum will remove the dead rows");
            }
        });
    }
}

/// The lock belongs to the session, which ends afterwards: `maintain` closes the connection.
async fn vacuum(connection: &mut PgConnection, task: &str) -> sqlx::Result<()> {
    const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended($1, 7))";
    let alone: bool = sqlx::query(LOCK).persistent(false).bind(task).fetch_one(&mut *connection).await?.try_get(0)?;
    if alone {
        for sql in [
            "SET statement_timeout = 0".to_string(),
            format!("VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) {task}"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
