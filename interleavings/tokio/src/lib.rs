//! What delayline uses of tokio: shuttle's tasks and channels, whose every step its scheduler may put off, and a
//! [`time`] that moves only when nobody can go on.

pub mod time;

pub use shuttle_tokio::{runtime, select, spawn, sync};

pub mod task {
    pub use shuttle_tokio::task::*;

    /// A step, and never the end of a budget: shuttle's own always yields, so that who makes a new one at each poll gets
    /// nowhere.
    pub async fn consume_budget() {
        use shuttle::sync::atomic::{AtomicBool, Ordering};
        // Any access to an atomic is a step.
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}
