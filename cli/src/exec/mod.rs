//! Running commands: one per task, a limited number at once. A killed command is killed with all processes that it
//! started.

pub(crate) mod args;
mod command;
mod groups;
mod pump;

use std::time::Duration;

pub(crate) use self::command::Runner;
pub(crate) use self::groups::Groups;

/// The maximum delay between two attempts.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(3600);

/// Two commands per core.
pub(crate) fn concurrency() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get())
}
