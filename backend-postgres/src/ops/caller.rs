//! Calls that go on when their caller is dropped, to the end of the current piece, because a notification follows it.

use std::sync::{Arc, Weak};

use delayline_core::{Error, ErrorKind, Result, owned};

/// The caller of such a call, who may be gone.
pub(crate) struct Caller(Weak<()>);

impl Caller {
    /// Checks that the caller still waits. Start another piece only if so: a late piece would run after a repeated
    /// call, or after other calls.
    ///
    /// # Errors
    /// If the caller is gone; then nobody sees the error.
    pub(super) fn waits(&self) -> Result<()> {
        match self.0.strong_count() {
            0 => Err(Error::new(ErrorKind::Unavailable, "the caller was dropped")),
            _ => Ok(()),
        }
    }
}

/// Runs work that goes on when its caller is dropped. Between its pieces, the work can check whether the caller still
/// waits.
pub(crate) async fn to_the_end<T, F>(work: impl FnOnce(Caller) -> F + Send) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let here = Arc::new(());
    let work = work(Caller(Arc::downgrade(&here)));
    owned(work, |_| async {}).await
}
