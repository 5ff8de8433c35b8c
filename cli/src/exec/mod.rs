//! Running commands: one for each task, at most so many at once, each killed with all that it has started.

pub(crate) mod args;
mod command;
mod groups;
mod pump;

use std::time::Duration;

pub(crate) use self::command::Runner;
pub(crate) use self::groups::Groups;

/// No wait between two attempts is longer.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(3600);

/// Two commands for each core.
pub(crate) fn concurrency() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get())
}
