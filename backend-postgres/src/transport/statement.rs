//! Binds statements and runs them, on the backend's connections or inside the caller's transaction.

use std::sync::Arc;

use delayline_core::{Result, meter};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

use crate::limits::NAME;
use crate::transport::db::Db;
use crate::transport::failure::{Effect, failed};

/// A statement whose arguments are being bound.
pub(crate) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

impl Db {
    /// Runs one statement and returns its rows. Binds the arguments again for each try.
    pub(crate) async fn rows<B>(
        &self,
        what: &'static str,
        effect: Effect,
        sql: &Arc<str>,
        bind: B,
    ) -> Result<Vec<PgRow>>
    where
        B: Fn(Query<'static>) -> Query<'static> + Send + Sync + 'static,
    {
        let (sql, named, bind) = (sql.clone(), self.named(), Arc::new(bind));
        self.run(what, effect, move |connection: &mut PgConnection| {
            let query = query(&sql, named, &*bind);
            async move { query.fetch_all(connection).await }.boxed()
        })
        .await
    }
}

/// Runs a statement in the caller's transaction. The statement is unnamed, because the session belongs to the caller.
pub(crate) async fn inside(
    connection: &mut PgConnection,
    sql: &Arc<str>,
    bind: &(dyn Fn(Query<'static>) -> Query<'static> + Send + Sync),
) -> Result<Vec<PgRow>> {
    let rows = query(sql, false, bind).fetch_all(connection).await;
    rows.map_err(|e| failed("in the caller's transaction", Effect::Read, e))
}

/// A statement with its arguments, ready to send.
pub(crate) fn query(
    sql: &Arc<str>,
    named: bool,
    bind: &(impl Fn(Query<'static>) -> Query<'static> + ?Sized),
) -> Query<'static> {
    meter::round_trip(NAME);
    bind(sqlx::query(AssertSqlSafe(sql.clone())).persistent(named))
}

/// Tells the compiler that a closure works with a connection of any lifetime, which it does not infer.
pub(crate) fn as_work<T, F>(work: F) -> F
where
    F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
{
    work
}
