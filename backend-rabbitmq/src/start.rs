//! Checks before the first call.

use delayline_core::Result;

use crate::store::Store;

/// Opens both connections, and declares the shared topology.
pub(crate) async fn check(store: &Store) -> Result<()> {
    tokio::try_join!(store.consuming.connection(), store.publishing.connection())?;
    store.topology.base().await
}
