//! What is checked before the first call.

use delayline_core::Result;

use crate::store::Store;

/// Connects twice, and makes sure of what all queues share.
pub(crate) async fn check(store: &Store) -> Result<()> {
    tokio::try_join!(store.consuming.connection(), store.publishing.connection())?;
    store.topology.base().await
}
