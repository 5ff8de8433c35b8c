//! The promises of delayline as tests for any [`DelayBackend`](delayline_core::DelayBackend).
//!
//! To test a custom backend, add this to a test file:
//!
//! ```ignore
//! delayline_conformance::suite!(MyHarness::new());
//! ```
//!
//! `MyHarness` is a [`Harness`] that opens the backend; `examples/third_party.rs` is a complete example. The tests take
//! their bounds from the backend's [`Capabilities`](delayline_core::Capabilities). What the backend declares as missing
//! must answer `Unsupported`. No test depends on a backend's name.
//!
//! | module | what is in it |
//! |---|---|
//! | [`harness`] | what a store provides to the suite |
//! | [`suite`](mod@suite), [`need`], [`run()`] | the list of tests, the capabilities they need, and running a test |
//! | [`trial`] | the environment of a test |
//! | [`history`] | every call as the client saw it, in memory and in a file |
//! | [`check`](mod@check) | pure checkers over a history |
//! | [`ledger`] | the same checks for runs of millions of tasks, during the run |
//! | [`tests`] | the tests, by promise |
//! | [`heap`], [`dropping`] | probes: live heap memory, and futures dropped half-way |
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
