//! The proof that each test can fail: backends that are broken in one way, each caught by the test named for the promise that
//! it breaks. `docs/mutants.md` shows what else catches them; `examples/mutants.rs` makes that table.
//!
//! A mutant is any sound backend seen through a [`Defect`]: the calls are changed on their way in, or the answers on their
//! way out. So one's own backend can be mutated in the same way as the one in memory:
//!
//! ```ignore
//! let harness = Mutated::new(&MUTANTS[0], Arc::new(MyHarness::new()));
//! let report = run_test(find(MUTANTS[0].caught_by).unwrap(), Arc::new(harness), seed());
//! assert!(matches!(report.outcome, Outcome::Failed(_)));
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `mutant`, `list` | what a mutant is; all of them |
//! | `defect` | what a defect can change, and what it may remember |
//! | `backend`, `subscription`, `harness` | a backend, its subscriptions and its harness, seen through a defect |
//! | `time` `loss` `dup` `order` `cancel` `live` `clear` `leak` | the defects, by the family of promises that they break |
//! | `watch`, `main` | for those who run them: whether one was caught, without noise; the `main` of a test target |

mod backend;
mod cancel;
mod clear;
mod defect;
mod dup;
mod harness;
mod leak;
mod list;
mod live;
mod loss;
mod main;
mod mutant;
mod order;
mod subscription;
mod time;
mod watch;

pub use defect::{Defect, Inner, Opened};
pub use harness::Mutated;
pub use list::MUTANTS;
pub use main::mutants_main;
pub use mutant::Mutant;
pub use watch::{Seen, quiet, see};
