//! Asking whether the broker answers, and closing. AMQP shows nothing of what is in a queue or which queues there are, so
//! `administer`, `stats` and `queues` are `Unsupported`.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter, owned};
use tokio::time::timeout;

use crate::consuming::lines::Lines;
use crate::limits::NAME;
use crate::shared::Shared;
use crate::transport::asking::look_for_queue;
use crate::transport::failure;

/// How long closing waits for what is being given back.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Asks whether the broker answers on both connections.
pub(crate) async fn ping(shared: &Shared) -> Result<()> {
    let doing = "asking whether the broker is there";
    shared.lifecycle.open()?;
    for link in [&shared.consuming, &shared.publishing] {
        let channel = link.channel().await?;
        meter::round_trip(NAME);
        match timeout(shared.config.response_timeout, look_for_queue(&channel, &shared.names.registry())).await {
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

pub(crate) async fn close(shared: &Arc<Shared>, lines: &Arc<Lines>) -> Result<()> {
    shared.lifecycle.close();
    let (shared, lines) = (shared.clone(), lines.clone());
    let closing = async move {
        let _ = timeout(CLOSE_MAX, lines.ended()).await;
        shared.outbox.publisher.close();
        tokio::join!(shared.consuming.close(), shared.publishing.close());
        Ok(())
    };
    owned(closing, |()| async {}).await
}
