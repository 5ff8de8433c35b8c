//! The arguments of `conform`.

use std::path::PathBuf;

use crate::parse::whole;

const EXAMPLES: &str = r#"Examples:
  Test a store against every promise of delayline:
    delayline conform --backend memory:

  Test some promises; write one JSON object to stdout:
    delayline conform --only dup --only loss_1 --json

  Repeat a failed test with the same randomness:
    delayline conform --only dup_4 --seed 0x1f2e3d4c5b6a7988

  Check the history of a failed test again, without the store:
    delayline conform --check dup_4_a_stale_lease.1f2e.jsonl

  Remove what killed runs have left on a server:
    delayline conform --remove-left --backend redis://localhost

What happens:
  Each test creates its own queues, works on them as applications would, and
  checks what it saw against the promises (docs/semantics.md in delayline's
  repository). An operation that the store declares it lacks must answer
  `Unsupported`. Tests that would need to kill a server, step its clock or
  measure the heap are shown as not tested.

  The run works in a namespace of its own (`conform-XXXXXXXX`, added to the key
  prefix, schema or namespace of the URL), and removes it at the end, also
  after a failure and after Ctrl-C. It keeps the history of a failed test as a
  file.

Exit codes:
  0    every promise that could be tested holds
  1    it could not start, or it broke off
  2    the command line is wrong
  5    a promise does not hold
  130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)"#;

/// Run the conformance suite against a backend, and show which promises hold.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConformArgs {
    /// Beginning of the names of the tests to run, such as `dup` or `dup_3`; repeat for more. Default: all tests.
    /// The result lists the names of the tests that ran.
    #[arg(long, value_name = "PREFIX")]
    pub(super) only: Vec<String>,

    /// Number of tests that run at the same time.
    #[arg(long, value_name = "N", default_value = "4", value_parser = whole(1_u16, 64))]
    pub(super) jobs: u16,

    /// Seed of all randomness, decimal or hexadecimal after `0x`. Default: a new one for each run.
    #[arg(long, value_name = "NUMBER", value_parser = seed)]
    pub(super) seed: Option<u64>,

    /// File with the history of a failed test to check; no test runs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "seed"])]
    pub(super) check: Option<PathBuf>,

    /// Keep the namespace of the run on the server. --remove-left removes it later.
    #[arg(long, conflicts_with = "check")]
    pub(super) keep: bool,

    /// Remove the namespaces that runs of `conform`, `bench` and `demo` have left at the backend's URL; no test runs.
    /// Namespaces in use stay.
    #[arg(long, conflicts_with_all = ["only", "seed", "check", "keep"])]
    pub(super) remove_left: bool,

    /// Write the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,

    /// Show no progress bar. Without this, there is a bar only if stderr is a terminal.
    #[arg(long)]
    pub(super) no_progress: bool,
}

fn seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a whole number: decimal, or hexadecimal after `0x`".to_owned())
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
