//! Running application code whose panics must not propagate: handlers, codecs, policies, and the texts of its errors.
//!
//! Between a claim and its settling, a panic would leave the task in flight until its lease ends. In a `Drop` during
//! another panic, it would abort the process.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::{Instrument, Span};

/// Runs a function. Returns the panic message if it panics.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Arc<str>> {
    catch_unwind(AssertUnwindSafe(run)).map_err(said)
}

/// Runs a future in a span. Returns the panic message if it panics.
pub(crate) async fn caught_in<T>(span: Span, future: impl Future<Output = T>) -> Result<T, Arc<str>> {
    AssertUnwindSafe(future).catch_unwind().instrument(span).await.map_err(said)
}

/// The message of a panic.
fn said(panic: Box<dyn Any + Send>) -> Arc<str> {
    let text = match panic.downcast_ref::<&str>() {
        Some(text) => text,
        None => panic.downcast_ref::<String>().map_or("without a message", String::as_str),
    };
    let text = text.into();
    // The panic value belongs to the application, too: its drop may panic, and so may the drop of that panic's value.
    // The last one is therefore not dropped.
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(another);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsToo;

    impl Drop for PanicsToo {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[test]
    fn whatever_a_panic_carries_its_text_comes_back_and_nothing_else() {
        assert_eq!(caught(|| 7).unwrap(), 7);
        assert_eq!(&*caught(|| panic!("out of paper")).unwrap_err(), "out of paper");
        assert_eq!(&*caught(|| panic!("out of {}", "ink")).unwrap_err(), "out of ink");
        assert_eq!(&*caught(|| panic_any(PanicsToo)).unwrap_err(), "without a message");
    }
}
