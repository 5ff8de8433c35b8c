//! What is checked before the first call.

use delayline_core::Result;

use crate::shared::Shared;

/// Connects twice, and makes sure of what all queues share.
pub(crate) async fn check(shared: &Shared) -> Result<()> {
    tokio::try_join!(shared.consuming.connection(), shared.publishing.connection())?;
    shared.topology.base().await
}
