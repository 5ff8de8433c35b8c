//! Running futures that must not be interrupted: the DROP promise, written once for every backend.

use std::future::Future;
use std::panic::resume_unwind;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{Error, ErrorKind, Result};

/// Runs `future` to its end on the current runtime, even if the caller is dropped. A value that nobody received then
/// goes to `on_orphan`.
///
/// Use it in backends for calls that must not be interrupted: a claim whose caller is gone still gets its answer, and
/// `on_orphan` gives the tasks back. `on_orphan` is called exactly when the value was not returned to the caller, also
/// if the caller is dropped after the value was sent and before it was taken. An error that nobody received is
/// discarded.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use delayline_core::owned;
/// let claimed = owned(async { Ok(vec!["task 1"]) }, |unseen| async move { drop(unseen /* give them back here */) });
/// assert_eq!(claimed.await.unwrap(), ["task 1"]);
/// # }
/// ```
///
/// # Errors
/// Those of `future`, and [`Closed`](ErrorKind::Closed) if the runtime shut down before `future` ended. It is then
/// unknown whether `future` took effect.
///
/// # Panics
/// If `future` panics, with the same panic. If there is no tokio runtime.
///
/// # Cancel safety
/// A call that is dropped before its first poll has started nothing. For a later drop, see above.
pub async fn owned<T, F, O, G>(future: F, on_orphan: O) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
    O: FnOnce(T) -> G + Send + 'static,
    G: Future<Output = ()> + Send + 'static,
{
    let runtime = Handle::current();
    let (sender, receiver) = oneshot::channel();
    let work = {
        let runtime = runtime.clone();
        async move {
            // A value that can't be sent is dropped here, and thereby goes to the orphan handler.
            let _ = sender.send(future.await.map(|value| Parcel(Some((value, on_orphan, runtime)))));
        }
    };
    let task = runtime.spawn(work.in_current_span());
    match receiver.await {
        Ok(answer) => answer.map(|parcel| parcel.open().0),
        Err(_) => match task.await {
            Err(e) if e.is_panic() => resume_unwind(e.into_panic()),
            Ok(()) | Err(_) => Err(Error::new(ErrorKind::Closed, "the runtime shut down before the call ended")),
        },
    }
}

/// A value on its way to its receiver. If it is dropped unopened, it goes to the orphan handler.
struct Parcel<T, O, G>(Option<(T, O, Handle)>)
where
    T: Send + 'static,
    O: FnOnce(T) -> G + Send + 'static,
    G: Future<Output = ()> + Send + 'static;

impl<T, O, G> Parcel<T, O, G>
where
    T: Send + 'static,
    O: FnOnce(T) -> G + Send + 'static,
    G: Future<Output = ()> + Send + 'static,
{
    fn open(mut self) -> (T, O) {
        let (value, on_orphan, _) = self.0.take().expect("a parcel is opened once, because that consumes it");
        (value, on_orphan)
    }
}

impl<T, O, G> Drop for Parcel<T, O, G>
where
    T: Send + 'static,
    O: FnOnce(T) -> G + Send + 'static,
    G: Future<Output = ()> + Send + 'static,
{
    fn drop(&mut self) {
        if let Some((value, on_orphan, runtime)) = self.0.take() {
            // Called in a spawned task: if it panicked here while another panic unwinds, the process would abort.
            runtime.spawn(async move { on_orphan(value).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::sync::{Notify, mpsc};

    use super::*;

    /// An `owned` that ends when told to, and where its orphans are seen.
    fn gated() -> (impl Future<Output = Result<u32>>, Arc<Notify>, mpsc::Receiver<u32>) {
        let gate = Arc::new(Notify::new());
        let (orphans, seen) = mpsc::channel(1);
        let work = {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                Ok(7)
            }
        };
        let owned = owned(work, move |value| async move { orphans.send(value).await.unwrap() });
        (owned, gate, seen)
    }

    #[tokio::test]
    async fn drop_9_a_value_that_is_received_is_no_orphan() {
        let (owned, gate, mut seen) = gated();
        gate.notify_one();
        assert_eq!(owned.await.unwrap(), 7);
        assert_eq!(seen.recv().await, None, "the handler was dropped uncalled");
    }

    #[tokio::test]
    async fn drop_9_a_value_whose_caller_left_goes_to_the_handler() {
        let (owned, gate, mut seen) = gated();
        let mut owned = Box::pin(owned);
        assert!((&mut owned).now_or_never().is_none());
        drop(owned);
        gate.notify_one();
        assert_eq!(seen.recv().await, Some(7));
    }

    #[tokio::test]
    async fn drop_9_a_value_that_was_sent_but_not_taken_goes_to_the_handler() {
        let (owned, gate, mut seen) = gated();
        let mut owned = Box::pin(owned);
        assert!((&mut owned).now_or_never().is_none());
        gate.notify_one();
        // On this runtime of one thread the task runs now, up to having sent its value.
        tokio::task::yield_now().await;
        assert!(seen.recv().now_or_never().is_none());
        drop(owned);
        assert_eq!(seen.recv().await, Some(7));
    }

    #[tokio::test]
    #[should_panic(expected = "a bug in the backend")]
    async fn a_panic_reaches_the_caller() {
        let _ = owned(async { panic!("a bug in the backend") }, |(): ()| async {}).await;
    }

    #[tokio::test]
    async fn drop_9_a_handler_that_panics_while_a_panic_drops_the_call_ends_no_process() {
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let work = async move {
            opened.notified().await;
            Ok(7)
        };
        let on_orphan = |value: u32| -> std::future::Ready<()> { panic!("no place for {value}") };
        let mut owned = Box::pin(owned(work, on_orphan));
        assert!((&mut owned).now_or_never().is_none());
        gate.notify_one();
        tokio::task::yield_now().await;
        // The value was sent and not taken.
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _call = owned;
            panic!("in its caller");
        }));
        assert!(dropped.is_err());
        tokio::task::yield_now().await;
    }

    #[test]
    fn close_9_a_runtime_that_shuts_down_answers_rather_than_hangs() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut call = Box::pin(owned(std::future::pending::<Result<()>>(), |()| async {}));
        runtime.block_on(async { assert!((&mut call).now_or_never().is_none()) });
        drop(runtime);
        let answer = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed);
    }
}
