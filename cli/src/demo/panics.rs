//! Panics that the demo provokes, and that it does not report on the terminal.

use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;

/// The message of the demo's panics.
const MARK: &str = "the demo's own panic";

/// Panics, as a broken handler would.
pub(super) fn panic_on_purpose() -> ! {
    panic::panic_any(MARK)
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Sync + Send;

/// While this is held, the demo's own panics are not reported; all others are.
pub(super) struct Silence {
    usual: Arc<Hook>,
}

impl Silence {
    pub(super) fn new() -> Self {
        let usual: Arc<Hook> = panic::take_hook().into();
        let hook = usual.clone();
        panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&MARK) {
                hook(panic);
            }
        }));
        Self { usual }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A panicking thread must not change the hook.
        if !thread::panicking() {
            let usual = self.usual.clone();
            panic::set_hook(Box::new(move |panic| usual(panic)));
        }
    }
}
