//! What every command understands.

use clap::ArgAction;

/// What every command understands.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Where the tasks are kept: `memory:` is this process, and ends with it; others outlive it, such as
    /// `redis://127.0.0.1`.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DELAYLINE_BACKEND",
        default_value = "memory:",
        // It may hold a password.
        hide_env_values = true
    )]
    pub(crate) backend: String,

    /// Log more to stderr: -v what happens, -vv in detail, -vvv everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}
