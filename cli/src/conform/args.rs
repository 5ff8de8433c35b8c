//! What can be said to `delayline conform`.

use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  Hold a store to everything that delayline promises:
    delayline conform --backend memory:

  Only some promises; for programs, one JSON object on stdout:
    delayline conform --only dup --only loss_1 --json

  What failed, again with the same randomness:
    delayline conform --only dup_4 --seed 0x1f2e3d4c5b6a7988

  A history that a failed test has left, checked again without the store:
    delayline conform --check dup_4_a_stale_lease.1f2e.jsonl

  What runs that were killed have left on a server, removed:
    delayline conform --remove-left --backend redis://localhost

What happens:
  Each test makes queues of its own, works on them as applications would, and
  holds what it saw against docs/semantics.md. What the store declares that it
  lacks has to answer `Unsupported`. Tests that would have to kill a server,
  step its clock or measure the heap are shown as not tested.

  All of it is in a namespace of its own below the URL's (`conform-XXXXXXXX`),
  which is removed at the end, after a failure and after Ctrl-C too. What a
  failed test saw stays as a file.

Exit codes:
  0    every promise that could be tested holds
  1    it could not start, or broke off
  2    the command line is wrong
  5    a promise does not hold
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Runs the conformance suite against a backend, and shows which promises hold.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConformArgs {
    /// Only tests whose names begin so, such as `dup` or `dup_3`; several times for more.
    #[arg(long, value_name = "PREFIX")]
    pub(super) only: Vec<String>,

    /// How many tests run at the same time.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) jobs: u16,

    /// What all randomness comes from; another one for each run unless it is said.
    #[arg(long, value_name = "NUMBER", value_parser = seed)]
    pub(super) seed: Option<u64>,

    /// Check a history that a test has written, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "seed"])]
    pub(super) check: Option<PathBuf>,

    /// Leave the namespace of the run on the server; --remove-left removes it.
    #[arg(long, conflicts_with = "check")]
    pub(super) keep: bool,

    /// Remove the namespaces that runs of `conform`, `bench` and `demo` have left at the backend's URL, and nothing else.
    /// Those in use stay.
    #[arg(long, conflicts_with_all = ["only", "seed", "check", "keep"])]
    pub(super) remove_left: bool,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// No progress bar. There is one only where stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,
}

fn seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not a whole number, decimal or after 0x".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_on_80_columns() {
        for line in EXAMPLES.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }

    #[test]
    fn a_seed_is_read_as_it_is_shown() {
        assert_eq!(seed("0x00000000000000ff"), Ok(255));
        assert_eq!(seed("255"), Ok(255));
        assert!(seed("ff").is_err() && seed("-1").is_err());
    }
}
