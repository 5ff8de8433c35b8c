//! Confirmation of actions that can't be undone.

use std::io::{self, IsTerminal};

use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Asks for confirmation on the terminal, except with `--yes`.
///
/// # Errors
/// If the answer is not "yes", or if standard input or standard error is not a terminal. The caller must do nothing
/// then.
pub(super) fn confirm(yes: bool, console: &Console, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !console.is_terminal() {
        let why = format!(
            "confirmation required, and there is no terminal to ask on: this would {what}; to do it, add --yes"
        );
        return Err(Failure::new(why).exit(Exit::Usage));
    }
    console.write(format!("delayline: this will {what}. Go on? [y/N] ").as_bytes());
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::io("cannot read the answer", &e))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was done")),
    }
}
