//! What delayline uses of tokio-util: its own token, which wakes whatever waits, with a step of the scheduler before each
//! use.

pub mod sync {
    use real::sync::{CancellationToken as Real, WaitForCancellationFuture};
    use shuttle::sync::atomic::{AtomicBool, Ordering};

    #[derive(Clone, Debug, Default)]
    pub struct CancellationToken(Real);

    impl CancellationToken {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn child_token(&self) -> Self {
            Self(self.0.child_token())
        }

        pub fn cancel(&self) {
            step();
            self.0.cancel();
        }

        pub fn is_cancelled(&self) -> bool {
            step();
            self.0.is_cancelled()
        }

        pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
            step();
            self.0.cancelled()
        }
    }

    /// Any access to an atomic is one. A yield would also have the task polled again, for ever.
    fn step() {
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}
