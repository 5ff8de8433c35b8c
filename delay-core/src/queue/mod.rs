//! The typed queue, through which an application schedules, changes and inspects tasks.

mod admin;
mod change;
mod handle;
mod options;
mod schedule;

pub use self::handle::Queue;
pub use self::schedule::{Schedule, Scheduling, Task};
