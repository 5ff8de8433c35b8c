//! The typed queue: what an application schedules into, changes and looks at.

mod admin;
mod change;
mod handle;
mod options;
mod schedule;

pub use self::handle::Queue;
pub use self::schedule::{Schedule, Scheduling, Task};
