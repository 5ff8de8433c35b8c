//! Waiting for the broker's answer, and no longer than the configuration lets it take.

use delayline_core::{Result, meter};
use tokio::time::timeout;

use super::failure;
use crate::config::RabbitConfig;
use crate::limits::NAME;

/// What the broker answers to a request; `sent` if the request may take effect without an answer.
pub(crate) async fn answered<T>(
    config: &RabbitConfig,
    doing: &str,
    sent: bool,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    meter::round_trip(NAME);
    in_time(config, doing, sent, asked).await
}

/// Likewise of what is sent and not answered.
pub(crate) async fn in_time<T>(
    config: &RabbitConfig,
    doing: &str,
    sent: bool,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    match timeout(config.response_timeout, asked).await {
        Ok(done) => done.map_err(|e| failure::failed(doing, &e, sent)),
        Err(_) => Err(failure::silent(doing, config, sent)),
    }
}
