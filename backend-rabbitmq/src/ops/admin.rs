//! Pings the broker, and closes the backend. AMQP can't show the contents of a queue or list queues, so `administer`,
//! `stats` and `queues` are `Unsupported`.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter, owned};
use tokio::time::timeout;

use crate::consuming::lines::Lines;
use crate::limits::NAME;
use crate::store::Store;
use crate::transport::asking::look_for_queue;
use crate::transport::failure;

/// Time that closing waits for messages that are being returned.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Checks that the broker answers on both connections.
pub(crate) async fn ping(store: &Store) -> Result<()> {
    let doing = "ping";
    store.lifecycle.open()?;
    for link in [&store.consuming, &store.publishing] {
        let channel = link.channel().await?;
        meter::round_trip(NAME);
        match timeout(store.config.response_timeout, look_for_queue(&channel, &store.names.registry())).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) if failure::is_not_found(&e) => {
                store.topology.forget().await;
                store.topology.base().await?;
            }
            Ok(Err(e)) => return Err(failure::failed(doing, &e, false)),
            Err(_) => return Err(failure::silent(doing, &store.config, false)),
        }
    }
    Ok(())
}

pub(crate) async fn close(store: &Arc<Store>, lines: &Arc<Lines>) -> Result<()> {
    store.lifecycle.close();
    let (store, lines) = (store.clone(), lines.clone());
    let closing = async move {
        let _ = timeout(CLOSE_MAX, lines.ended()).await;
        store.outbox.publisher.close();
        tokio::join!(store.consuming.close(), store.publishing.close());
        Ok(())
    };
    owned(closing, |()| async {}).await
}
