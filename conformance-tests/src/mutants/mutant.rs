//! What a mutant is: a defect, the promise that it breaks, and the test that has to catch it.

use std::fmt;
use std::sync::Arc;

use super::defect::Defect;

/// One way of being broken.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// What it does, as a name.
    pub name: &'static str,
    /// Makes the defect, with nothing remembered.
    pub fault: fn() -> Arc<dyn Defect>,
    /// The promise that it breaks: `DUP-4`.
    pub breaks: &'static str,
    /// The test that has to catch it.
    pub caught_by: &'static str,
    /// What it does wrong, in a sentence.
    pub what: &'static str,
    /// Where something like it was seen.
    pub like: Option<&'static str>,
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutant").field("name", &self.name).field("breaks", &self.breaks).finish_non_exhaustive()
    }
}
