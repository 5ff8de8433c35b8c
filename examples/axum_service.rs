//! A web service that schedules tasks and runs them in one process, and shuts down without losing anything:
//! `cargo run --example axum_service`, then
//!
//! ```text
//! curl -X POST localhost:3000/reminders/ada?in_ms=2000
//! ```
//!
//! and Ctrl-C. With `--once`, it sends itself one request, waits for the reminder and ends; its test runs it in this
//! way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use delayline::{CancellationToken, Context, Queue, Worker, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Reminders = Arc<Queue<String>>;

async fn remind(
    State(reminders): State<Reminders>,
    Path(user): Path<String>,
    Query(query): Query<HashMap<String, u64>>,
) -> Result<String, (StatusCode, String)> {
    let wait = Duration::from_millis(query.get("in_ms").copied().unwrap_or(1_000));
    let scheduled = reminders.schedule(&user).after(wait).await;
    // The error says what went wrong, and whether a retry may help.
    let scheduled = scheduled.map_err(|e| {
        let status = if e.retryable() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
        (status, e.to_string())
    })?;
    Ok(format!("{}\n", scheduled.id()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let once = std::env::args().any(|arg| arg == "--once");
    let reminders = Arc::new(Queue::<String>::new(connect("memory:").await?, "reminders")?);

    let shutdown = CancellationToken::new();
    let reminded = shutdown.clone();
    let worker = Worker::builder()
        .queue(&reminders, move |user: String, context: Context| {
            println!("{user}: time to submit ({:?} late)", context.lateness());
            if once {
                reminded.cancel();
            }
            async {}
        })
        .shutdown(shutdown.clone())
        // Longer than any handler takes. A task that is still unfinished then is given back for the next process.
        .shutdown_deadline(Duration::from_secs(20))
        .build()?;
    let working = tokio::spawn(worker.run());

    let listener = tokio::net::TcpListener::bind(if once { "127.0.0.1:0" } else { "127.0.0.1:3000" }).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}");
    let app = Router::new().route("/reminders/{user}", post(remind)).with_state(reminders.clone());
    let stopping = shutdown.clone();
    let serving =
        tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(stopping.cancelled_owned()).into_future());

    if once {
        let mut client = tokio::net::TcpStream::connect(address).await?;
        let request = "POST /reminders/ada?in_ms=100 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        shutdown.cancelled().await;
    } else {
        tokio::signal::ctrl_c().await?;
        shutdown.cancel();
    }

    // First stop accepting requests, then let the worker finish its running handlers.
    serving.await??;
    let report = working.await??;
    println!("stopped: {} completed, {} given back", report.completed, report.released);
    reminders.backend().close().await?;
    Ok(())
}
