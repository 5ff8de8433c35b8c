//! The command line of delayline. Standard output carries what programs read; everything for people goes to standard error.

mod args;
mod conform;
mod console;
mod demo;
mod exit;
mod input;
mod logging;
mod output;
mod progress;
mod run;
#[cfg(feature = "postgres")]
mod schema;
mod signal;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::exit::Exit;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Command::Run(run) => run::main(&args.global, *run),
        Command::Conform(conform) => conform::main(&args.global, &conform),
        #[cfg(feature = "postgres")]
        Command::Schema(schema) => schema::main(&schema),
        Command::Demo(demo) => demo::main(&args.global, *demo),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console::last_words(&failure);
            Exit::Failed.into()
        }
    }
}
