//! The command line: the global options and the list of commands.

use clap::{Parser, Subcommand};

#[cfg(feature = "lab")]
use crate::bench::args::BenchArgs;
#[cfg(feature = "lab")]
use crate::conform::args::ConformArgs;
#[cfg(feature = "lab")]
use crate::demo::args::DemoArgs;
use crate::exit::{EXIT_CODES, STORES_AND_TERMS};
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
    after_help = format!("{STORES_AND_TERMS}\n\n{EXIT_CODES}"),
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
    use crate::run::args::{RUN_DETAILS, RUN_EXAMPLES, RUN_EXIT_CODES};
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
            ["--exec=x", "--grace=-5s"],
            ["--exec=", "-"],
            ["--queue=a b", "-"],
            ["--format=xml", "-"],
        ] {
            assert!(Args::try_parse_from(["delayline", "run"].into_iter().chain(args)).is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_bad_value_is_told_with_what_was_expected() {
        for (args, says) in [
            (&["run", "--exec=x", "--timeout", "-5s"][..], "it can't be negative; expected a duration"),
            (&["run", "--exec=x", "--concurrency", "-1"], "expected a whole number from 1 to 10000"),
            (&["run", "--exec=x", "--concurrency=0"], "expected a whole number from 1 to 10000"),
            (&["run", "--exec=x", "--max-attempts=5000000000"], "expected a whole number from 1 to 10000"),
            (&["move", "a", "--after", "-5s"], "it can't be negative; expected a duration"),
            (&["shift", "--group=g", "--by=0s"], "expected a duration other than zero"),
            (&["list", "--limit=x"], "expected a whole number from 1 to 1000000"),
            (&["work", "--max=0"], "expected a whole number above 0"),
            (&["work", "--metrics=localhost:9464"], "expected an IP address and a port"),
        ] {
            let e = Args::try_parse_from(["delayline"].iter().chain(args)).unwrap_err().to_string();
            assert!(e.contains(says), "{args:?}: {e}");
        }
    }

    #[test]
    fn help_fits_on_80_columns() {
        for line in [EXIT_CODES, STORES_AND_TERMS, RUN_EXAMPLES, RUN_DETAILS, RUN_EXIT_CODES]
            .iter()
            .flat_map(|text| text.lines())
        {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
