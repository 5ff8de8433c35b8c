//! A subscription with one defect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delayline_core::{Claim, Claimed, Error, ErrorKind, Result, Subscription};

use super::defect::{Defect, Inner, Opened};

/// A sound subscription seen through a defect.
pub(super) struct MutantSubscription {
    inner: Inner,
    defect: Arc<dyn Defect>,
    /// There until it is closed.
    opened: Option<Opened>,
}

impl MutantSubscription {
    pub(super) fn new(inner: Inner, defect: Arc<dyn Defect>, opened: Opened) -> Self {
        Self { inner, defect, opened: Some(opened) }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscription for MutantSubscription {
    async fn claim(&mut self, claim: Claim) -> Result<Claimed> {
        let Some(opened) = &mut self.opened else {
            return Err(Error::new(ErrorKind::Closed, "the subscription was closed"));
        };
        let claimed = self.defect.claim(&self.inner, opened, claim).await?;
        opened.expects = claimed.next_due_in.is_some();
        Ok(claimed)
    }

    async fn wait(&mut self, at_most: Duration) {
        if let Some(opened) = &mut self.opened {
            self.defect.wait(&self.inner, opened, at_most).await;
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let Some(mut opened) = self.opened.take() else { return Ok(()) };
        self.defect.ended(&self.inner, &mut opened);
        opened.inner.close().await
    }
}

impl Drop for MutantSubscription {
    fn drop(&mut self) {
        if let Some(mut opened) = self.opened.take() {
            self.defect.ended(&self.inner, &mut opened);
        }
    }
}

impl fmt::Debug for MutantSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutantSubscription").field("inner", &self.opened.as_ref().map(|opened| &opened.inner)).finish()
    }
}
