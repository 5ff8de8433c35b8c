//! Vacuum of our own: a queue's rows live briefly, and what is left of them is in the way of the claims that follow.
//!
//! Autovacuum would do it, too, but looks once in a minute, and may be busy or off. So a process that has made many dead rows
//! runs a vacuum itself, one process at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::transport::db::Db;
use crate::transport::statement::as_work;

/// How many rows this process has left dead until it vacuums.
const DEAD_ROWS: u64 = 100_000;

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What this process leaves behind in a database.
#[derive(Debug)]
pub(crate) struct Vacuum {
    db: Db,
    /// A pooler gives each statement to another session, where the lock of one process at a time does not work.
    possible: bool,
    /// Rows that were deleted or moved since the last vacuum was thought of.
    dead_rows: AtomicU64,
    /// How many make it run one.
    pub(crate) dead_rows_max: u64,
}

impl Vacuum {
    pub(crate) fn new(db: Db, possible: bool) -> Self {
        Self { db, possible, dead_rows: AtomicU64::new(0), dead_rows_max: DEAD_ROWS }
    }

    /// Notes that rows were deleted or moved, each of which leaves a dead one, and vacuums when they are many.
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
                tracing::debug!(error = %e, "no vacuum; autovacuum will do it");
            }
        });
    }
}

/// The lock is the session's, which ends with this: `maintain` closes the connection.
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
