//! Tasks and the application's own rows in one transaction: an order and its payment deadline are written together or
//! not at all. In the same way, closing the order and completing its task happen together or not at all.
//!
//! `cargo run --example transactional --features postgres postgres://...`, or with the URL in
//! `DELAYLINE_TEST_POSTGRES`. The example creates and drops two schemas.

use std::sync::Arc;
use std::time::Duration;

use delayline::backend::{Claim, SubscriptionOptions};
use delayline::postgres::{PostgresBackend, PostgresConfig};
use delayline::{DelayBackend, NewTask, QueueName, TaskId};
use sqlx::PgPool;

type Failure = Box<dyn std::error::Error>;

const SCHEMA: &str = "delayline_example";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("DELAYLINE_TEST_POSTGRES").ok());
    let pool = PgPool::connect(&url.ok_or("name a database: postgres://user@host/database")?).await?;
    // The application and delayline share one connection pool.
    let backend = Arc::new(PostgresBackend::connect(PostgresConfig::from_pool(pool.clone()).schema(SCHEMA)).await?);
    sqlx::query("CREATE SCHEMA IF NOT EXISTS delayline_example_shop").execute(&pool).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS delayline_example_shop.customer_order (id text PRIMARY KEY, state text NOT NULL)",
    )
    .execute(&pool)
    .await?;
    let queue = QueueName::new("order.unpaid")?;

    order(&pool, &backend, &queue, "order-1", true).await?;
    order(&pool, &backend, &queue, "order-2", false).await?;
    close_unpaid(&pool, &backend, &queue).await?;

    let orders: Vec<(String, String)> =
        sqlx::query_as("SELECT id, state FROM delayline_example_shop.customer_order ORDER BY id")
            .fetch_all(&pool)
            .await?;
    println!("{orders:?}; tasks left: {}", backend.stats(&queue).await?.scheduled);
    assert_eq!(orders, [("order-1".to_owned(), "closed: not paid in time".to_owned())]);
    backend.close().await?;
    sqlx::query("DROP SCHEMA delayline_example, delayline_example_shop CASCADE").execute(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Writes an order, and the task that closes the order if it is not paid in time.
async fn order(
    pool: &PgPool,
    backend: &PostgresBackend,
    queue: &QueueName,
    id: &str,
    goes_well: bool,
) -> Result<(), Failure> {
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO delayline_example_shop.customer_order (id, state) VALUES ($1, 'open')")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    let deadline = NewTask::new(Duration::from_millis(500), id.to_owned()).id(TaskId::new(id)?);
    for scheduled in backend.schedule_in(&mut transaction, queue, vec![deadline]).await? {
        scheduled?;
    }
    if !goes_well {
        // Neither the order nor its task was ever visible.
        transaction.rollback().await?;
        println!("{id}: something went wrong, nothing was written");
        return Ok(());
    }
    // From here on both exist, and a sleeping worker has been notified.
    transaction.commit().await?;
    println!("{id}: written, with its deadline");
    Ok(())
}

/// Closes the orders whose time is up. Each is closed exactly once, even if this program dies at any moment.
async fn close_unpaid(pool: &PgPool, backend: &PostgresBackend, queue: &QueueName) -> Result<(), Failure> {
    let mut subscription = backend.subscribe(queue, SubscriptionOptions::default()).await?;
    loop {
        let claimed = subscription.claim(Claim::new(10, Duration::from_secs(30))).await?;
        if claimed.deliveries.is_empty() {
            let fallback_poll_interval = backend.capabilities().fallback_poll_interval;
            subscription.wait(claimed.next_due_in.unwrap_or(fallback_poll_interval).min(fallback_poll_interval)).await;
            continue;
        }
        for task in claimed.deliveries {
            let id = std::str::from_utf8(&task.payload)?;
            let mut transaction = pool.begin().await?;
            sqlx::query("UPDATE delayline_example_shop.customer_order SET state = 'closed: not paid in time' WHERE id = $1 AND state = 'open'")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            // Completing the task is part of the transaction: if the lease was lost meanwhile, the update is rolled
            // back, too.
            let lost =
                backend.complete_in(&mut transaction, queue, &[task.lease]).await?.into_iter().any(|one| one.is_err());
            if lost {
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
                println!("{id}: closed");
            }
        }
        subscription.close().await?;
        return Ok(());
    }
}
