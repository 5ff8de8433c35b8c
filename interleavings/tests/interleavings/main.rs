//! Each scenario is an async function that is run anew for every schedule; a planted fault has to fail it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod commit;
mod owned;
mod subscription;
mod wake;
mod worker;
