//! Calls that go on without their caller, to the end of the piece that is under way, because a wake-up follows that.

use std::sync::{Arc, Weak};

use delayline_core::{Error, ErrorKind, Result, owned};

/// Whoever waits for a call that goes on without them to the end of its piece.
pub(crate) struct Caller(Weak<()>);

impl Caller {
    /// Begin another piece only then: what comes late would meet what a repeated call, or others, have done since.
    ///
    /// # Errors
    /// Nobody sees them.
    pub(super) fn waits(&self) -> Result<()> {
        match self.0.strong_count() {
            0 => Err(Error::new(ErrorKind::Unavailable, "its caller has left")),
            _ => Ok(()),
        }
    }
}

/// Runs work that is not cut short, and tells it between its pieces whether anybody still waits for it.
pub(crate) async fn to_the_end<T, F>(work: impl FnOnce(Caller) -> F + Send) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let here = Arc::new(());
    let work = work(Caller(Arc::downgrade(&here)));
    owned(work, |_| async {}).await
}
