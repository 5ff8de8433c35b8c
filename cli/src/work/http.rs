//! Metrics and health over HTTP: `/metrics` in the text format of Prometheus, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use delayline::{Queue, Support, meter};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use super::gate;
use crate::exit::Failure;

/// Upper bounds of the lateness histogram, in seconds.
const LATENESS_BUCKETS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3_600.0, 86_400.0];
/// Time limit for the statistics of the queue.
const STATS_PATIENCE: Duration = Duration::from_secs(2);
/// Interval at which recorded values go into their buckets, even if nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The server. It runs until it is dropped.
#[derive(Debug)]
pub(super) struct Served(Vec<JoinHandle<()>>);

/// Installs the recorder for all metrics of the library.
pub(super) fn record() -> Result<PrometheusHandle, Failure> {
    let cannot = |e: &dyn std::fmt::Display| Failure::new(format!("cannot record metrics: {e}"));
    let lateness = Matcher::Full("delayline_lateness_seconds".to_owned());
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(lateness, &LATENESS_BUCKETS).map_err(|e| cannot(&e))?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| cannot(&e))?;
    meter::describe();
    Ok(handle)
}

/// Serves the metrics. The returned address has the port that the system chose, if the port was 0. `queue` is set once the
/// store was reached.
pub(super) async fn serve(
    address: SocketAddr,
    handle: PrometheusHandle,
    queue: Arc<OnceLock<Queue<Bytes>>>,
    gate: Arc<gate::Shared>,
) -> Result<(Served, SocketAddr), Failure> {
    let cannot = |e: std::io::Error| Failure::io(format_args!("cannot serve metrics on {address}"), &e);
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let upkeep = handle.clone();
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Asked { handle, queue, gate });
    let serving = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, router).await {
            tracing::warn!(error = %e, "the metrics server has stopped");
        }
    });
    let tidying = tokio::spawn(async move {
        let mut every = interval(UPKEEP_EVERY);
        loop {
            every.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok((Served(vec![serving, tidying]), bound))
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Clone)]
struct Asked {
    handle: PrometheusHandle,
    /// The queue without the gate, which does not support statistics.
    queue: Arc<OnceLock<Queue<Bytes>>>,
    gate: Arc<gate::Shared>,
}

async fn metrics_text(State(asked): State<Asked>) -> impl IntoResponse {
    let counted = |queue: &&Queue<Bytes>| queue.backend().capabilities().stats != Support::Unsupported;
    if let Some(queue) = asked.queue.get().filter(counted) {
        match timeout(STATS_PATIENCE, queue.stats()).await {
            // The library has set its gauges.
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::debug!(error = %e, "no statistics of the queue"),
            Err(_) => tracing::debug!("no statistics of the queue in time"),
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], asked.handle.render())
}

async fn healthz(State(asked): State<Asked>) -> (StatusCode, String) {
    said(asked.gate.claims.healthy())
}

async fn readyz(State(asked): State<Asked>) -> (StatusCode, String) {
    said(asked.gate.claims.ready())
}

fn said(state: Result<&'static str, String>) -> (StatusCode, String) {
    match state {
        Ok(word) => (StatusCode::OK, word.to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
