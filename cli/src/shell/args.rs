//! What can be said to `completions` and `man`.

use std::path::PathBuf;

use clap_complete::Shell;

/// Writes a completion script for a shell to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline completions bash > /etc/bash_completion.d/delayline
  delayline completions zsh > \"${fpath[1]}/_delayline\"
  delayline completions fish > ~/.config/fish/completions/delayline.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

/// Writes the manual to stdout, or a page for each command into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline man | man -l -
  delayline man work | man -l -
  delayline man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command that the page is about; several words for `dead list`. The program itself unless told.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(super) command: Vec<String>,

    /// Writes all pages into this folder, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
