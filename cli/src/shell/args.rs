//! The arguments of `completions` and `man`.

use std::path::PathBuf;

use clap_complete::Shell;

/// Write a completion script for a shell to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline completions bash > /etc/bash_completion.d/delayline
  delayline completions zsh > \"${fpath[1]}/_delayline\"
  delayline completions fish > ~/.config/fish/completions/delayline.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell to write the script for.
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

/// Write a manual page to stdout, or the pages of all commands into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline man | man -l -
  delayline man work | man -l -
  delayline man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Command that the page describes; two words for a command such as `dead list`. Default: the program itself.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(super) command: Vec<String>,

    /// Directory for the pages of all commands; created if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
