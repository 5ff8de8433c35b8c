//! The command line: the global options and the list of commands.

use clap::{Parser, Subcommand};

#[cfg(feature = "lab")]
use crate::bench::args::BenchArgs;
#[cfg(feature = "lab")]
use crate::conform::args::ConformArgs;
#[cfg(feature = "lab")]
use crate::demo::args::DemoArgs;
use crate::exit::EXIT_CODES;
use crate::global::Global;
#[cfg(not(all(feature = "lab", feature = "tui")))]
use crate::missing::Missing;
use crate::push::args::PushArgs;
use crate::run::args::RunArgs;
use crate::shell::args::{CompletionsArgs, ManArgs};
use crate::store::args::StoreCommand;
#[cfg(feature = "tui")]
use crate::watch::args::WatchArgs;
use crate::work::args::WorkArgs;

/// Schedule delayed tasks, and run each when it is due.
#[derive(Debug, Parser)]
#[command(
    name = "delayline",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = EXIT_CODES,
    subcommand_help_heading = "Commands",
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Push(Box<PushArgs>),
    Work(Box<WorkArgs>),
    #[cfg(feature = "tui")]
    Watch(WatchArgs),
    #[command(flatten)]
    Store(StoreCommand),
    #[cfg(feature = "lab")]
    Demo(Box<DemoArgs>),
    #[cfg(feature = "lab")]
    Conform(Box<ConformArgs>),
    #[cfg(feature = "lab")]
    Bench(Box<BenchArgs>),
    #[cfg(feature = "postgres")]
    Schema(crate::schema::SchemaArgs),
    #[cfg(not(all(feature = "lab", feature = "tui")))]
    #[command(flatten)]
    Missing(Missing),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::{RUN_DETAILS, RUN_EXAMPLES};
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_for_commands_want_a_command() {
        for option in ["--concurrency=2", "--timeout=1s", "--max-attempts=2", "--retry-delay=1s", "--grace=1s"] {
            assert!(Args::try_parse_from(["delayline", "run", option]).is_err(), "{option}");
            assert!(Args::try_parse_from(["delayline", "run", "--exec", "true", option]).is_ok(), "{option}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for args in [
            ["--exec=x", "--timeout=0s"],
            ["--exec=x", "--concurrency=0"],
            ["--exec=x", "--max-attempts=0"],
            ["--exec=x", "--retry-delay=soon"],
            ["--exec=", "-"],
            ["--queue=a b", "-"],
            ["--format=xml", "-"],
        ] {
            assert!(Args::try_parse_from(["delayline", "run"].into_iter().chain(args)).is_err(), "{args:?}");
        }
    }

    #[test]
    fn help_fits_on_80_columns() {
        for line in [EXIT_CODES, RUN_EXAMPLES, RUN_DETAILS].iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
