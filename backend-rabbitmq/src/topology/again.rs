//! Retries after internal errors of the broker.

use delayline_backend_kit::Backoff;
use delayline_core::Result;
use tokio::time::sleep;

use crate::transport::failure;

/// Maximum number of retries after internal errors: about ten seconds.
const AGAIN_MAX: usize = 10;

/// Runs work that is safe to repeat, and retries it after an internal error of the broker. While a broker creates and
/// removes many queues at once, some requests fail that work a moment later (seen on 3.10.8 and 4.0.5). Such an error
/// closes the connection.
pub(super) async fn repeated<T, F: Future<Output = Result<T>>>(work: impl Fn() -> F) -> Result<T> {
    let mut backoff = Backoff::new();
    for _ in 0..AGAIN_MAX {
        match work().await {
            Err(e) if failure::is_of_the_broker(&e) => {
                tracing::debug!(error = %e, "internal error of the broker, trying again");
                sleep(backoff.failed()).await;
            }
            done => return done,
        }
    }
    work().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use delayline_core::{Error, ErrorKind};
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError};

    use super::*;

    /// What comes of something at which the broker fails so often.
    async fn after(failures: usize, e: impl Fn() -> Error) -> (Result<()>, usize) {
        let tries = AtomicUsize::new(0);
        let done = repeated(|| {
            let n = tries.fetch_add(1, Ordering::Relaxed);
            let answer = if n < failures { Err(e()) } else { Ok(()) };
            async move { answer }
        });
        (done.await, tries.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_the_broker_failed_at_is_done_again_and_nothing_else_is() {
        let internal = || {
            let said = AMQPError::new(AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR), "INTERNAL_ERROR".into());
            failure::failed("declaring", &lapin::ErrorKind::ProtocolError(said).into(), false)
        };
        assert!(matches!(after(3, internal).await, (Ok(()), 4)));
        assert_eq!(internal().kind(), ErrorKind::Unavailable);
        let (done, tries) = after(1, || Error::new(ErrorKind::Unavailable, "no broker")).await;
        assert!(done.is_err() && tries == 1, "a broker that is away is told at once");
    }
}
