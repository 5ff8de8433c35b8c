//! A harness whose clients have one defect.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use delayline_core::{DelayBackend, Result, Shift, Timestamp};

use super::backend::MutantBackend;
use super::defect::{Defect, Inner, Sound};
use super::mutant::Mutant;
use crate::harness::{Fault, Harness, Resources, Time};

/// Any harness, its clients broken in one way. All of them share what the defect remembers, as they share the store.
pub struct Mutated {
    inner: Arc<dyn Harness>,
    name: &'static str,
    defect: Arc<dyn Defect>,
}

impl Mutated {
    /// With the defect of this mutant.
    pub fn new(mutant: &Mutant, inner: Arc<dyn Harness>) -> Self {
        Self { inner, name: mutant.name, defect: (mutant.fault)() }
    }

    /// With none: what fails under a mutant has to pass under this, or it did not fail by the mutant's defect.
    pub fn sound(inner: Arc<dyn Harness>) -> Self {
        Self { inner, name: "sound", defect: Arc::new(Sound) }
    }
}

#[async_trait]
impl Harness for Mutated {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        let inner = Inner { backend: self.inner.open().await?, harness: self.inner.clone() };
        Ok(Arc::new(MutantBackend::new(inner, self.defect.clone())))
    }

    fn time(&self) -> Time {
        self.inner.time()
    }

    fn wall(&self) -> Timestamp {
        self.inner.wall()
    }

    fn step_wall(&self, by: Shift) -> bool {
        self.inner.step_wall(by)
    }

    async fn inject(&self, fault: Fault) -> Result<bool> {
        self.inner.inject(fault).await
    }

    async fn resources(&self) -> Result<Resources> {
        self.inner.resources().await
    }
}

impl fmt::Debug for Mutated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutated").field("mutant", &self.name).field("inner", &self.inner).finish()
    }
}
