//! The core of delayline: tasks that are handed in now and run at their due time, on the store that you already run.
mod admin;
mod backend;
mod capabilities;
mod change;
mod error;
mod lease;
pub mod limits;
mod names;
mod task;
mod time;

pub use admin::{AdminOp, BuryCause, Cursor, DeadLetter, DeadLetterOp, DeadLetters, DeadSelect, Page, QueueStats};
pub use async_trait::async_trait;
pub use backend::{DelayBackend, Intake, IntakeOptions};
pub use capabilities::{Capabilities, Durability, Order, Support};
pub use change::{Action, Change, ChangeOutcome, Changed, Select, Shift};
pub use error::{Error, ErrorKind, Result};
pub use lease::{Claim, Claimed, ClaimedTask, Lease, Reason, Verdict};
pub use names::{GroupName, OperationId, QueueName, TaskId};
pub use task::{Attempts, Headers, NewTask, OnConflict, Outcome, Receipt, Scheduled, TaskRef, TaskState, TaskView};
pub use time::{Clock, Due, SystemClock, TestClock, Timestamp};
