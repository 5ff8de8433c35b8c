//! What is checked before the first call.

use std::sync::Arc;

use delayline_core::{Result, meter};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;

use crate::capabilities::NAME;
use crate::failure;
use crate::shared::Shared;

/// Connects twice, and makes sure of what all queues share.
pub(crate) async fn check(shared: &Arc<Shared>) -> Result<()> {
    tokio::try_join!(shared.consuming.connection(), shared.publishing.connection())?;
    shared.topology.base().await
}

/// Asks whether the broker answers on both connections.
pub(crate) async fn ping(shared: &Arc<Shared>) -> Result<()> {
    let doing = "asking whether the broker is there";
    for link in [&shared.consuming, &shared.publishing] {
        let channel = link.channel().await?;
        meter::round_trip(NAME);
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(shared.names.registry().into(), options, FieldTable::default());
        match timeout(shared.config.response_timeout, asked).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) if failure::is_not_found(&e) => {
                shared.topology.forget().await;
                shared.topology.base().await?;
            }
            Ok(Err(e)) => return Err(failure::failed(doing, &e, false)),
            Err(_) => return Err(failure::silent(doing, &shared.config, false)),
        }
    }
    Ok(())
}
