//! Commands and options that this build lacks: the error names their Cargo feature.

#[cfg(not(all(feature = "lab", feature = "tui", feature = "metrics-server")))]
use crate::exit::{Exit, Failure};

/// The error for a command or an option.
#[cfg(not(all(feature = "lab", feature = "tui", feature = "metrics-server")))]
pub(crate) fn not_built(what: &str, feature: &str) -> Failure {
    Failure::new(format!("this program was built without {what}; build it with the feature `{feature}`"))
        .exit(Exit::Usage)
}

/// The missing commands, hidden from help.
#[cfg(not(all(feature = "lab", feature = "tui")))]
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Missing {
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Demo(Anything),
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Bench(Anything),
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Conform(Anything),
    #[cfg(not(feature = "tui"))]
    #[command(hide = true)]
    Watch(Anything),
}

/// Any arguments.
#[cfg(not(all(feature = "lab", feature = "tui")))]
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<std::ffi::OsString>,
}

#[cfg(not(all(feature = "lab", feature = "tui")))]
impl Missing {
    /// The error, which names the feature.
    pub(crate) fn main(self) -> Result<Exit, Failure> {
        let (command, feature) = match self {
            #[cfg(not(feature = "lab"))]
            Self::Demo(Anything { words: _ }) => ("demo", "lab"),
            #[cfg(not(feature = "lab"))]
            Self::Bench(Anything { words: _ }) => ("bench", "lab"),
            #[cfg(not(feature = "lab"))]
            Self::Conform(Anything { words: _ }) => ("conform", "lab"),
            #[cfg(not(feature = "tui"))]
            Self::Watch(Anything { words: _ }) => ("watch", "tui"),
        };
        Err(not_built(&format!("`{command}`"), feature))
    }
}
