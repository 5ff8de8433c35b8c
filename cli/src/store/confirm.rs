//! Asking before something is done that can't be undone.

use std::io::{self, IsTerminal};

use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Asks whether to do it, unless that was said already. Nobody can be asked where standard input is no terminal.
///
/// # Errors
/// If the answer is no, or there can be none; nothing is to be done then.
pub(super) fn confirm(yes: bool, console: &Console, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !console.is_terminal() {
        let why = format!("this would {what}; say --yes to do it, as there is nobody here to be asked");
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
