//! The options of every command.

use clap::ArgAction;

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// URL of the store that keeps the tasks. `memory:` is in this process and ends with it; the others outlive the
    /// process, such as `redis://127.0.0.1`.
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

    /// Log to stderr: -v at level info, -vv debug, -vvv trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}
