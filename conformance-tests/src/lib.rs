//! The promises of delayline as tests, to be run against any [`DelayBackend`](delayline_core::DelayBackend).
//!
//! A backend of one's own passes by three lines of a test file:
//!
//! ```ignore
//! delayline_conformance::suite!(MyHarness::new());
//! ```
//!
//! where `MyHarness` is a [`Harness`] that opens it; `examples/third_party.rs` is a complete one. What the backend
//! declares in its [`Capabilities`](delayline_core::Capabilities) is what tests use as bounds, and what it declares as
//! missing must answer `Unsupported`. No test asks for a backend's name.
//!
//! | module | what is in it |
//! |---|---|
//! | [`harness`] | what the suite needs to know of a store |
//! | [`suite`](mod@suite), [`need`], [`run()`] | the list of tests, what they need, and how one is run |
//! | [`trial`] | what a test works with |
//! | [`history`] | every call as it was seen, in memory and in a file |
//! | [`check`](mod@check) | pure checkers over a history |
//! | [`ledger`] | the same of a run of millions of tasks, while it is under way |
//! | [`tests`] | the tests, by promise |
//! | [`heap`], [`dropping`] | probes: what is alive, and futures dropped half-way |
//! | [`mutants`] | broken backends, each caught by a test: the proof that the tests can fail |

pub mod check;
pub mod dropping;
pub mod harness;
pub mod heap;
pub mod history;
mod leak_main;
pub mod ledger;
pub mod mutants;
pub mod need;
#[cfg(feature = "servers")]
pub mod proxy;
mod run;
#[cfg(feature = "servers")]
pub mod servers;
pub mod suite;
mod targets;
pub mod tests;
pub mod trial;

pub use harness::{Fault, Harness, Resources, Time};
pub use leak_main::leak_main;
pub use need::Need;
pub use run::{Failure, Outcome, Report, TEST_MAX, run, run_test, run_test_while, run_test_within, seed};
pub use suite::{LEAK_TESTS, TESTS, Test};
pub use trial::Trial;
