//! The command line of delayline. Standard output carries what programs read; everything for people goes to standard error.

mod args;
mod bench;
mod conform;
mod console;
mod demo;
mod exec;
mod exit;
mod global;
mod heap;
mod input;
mod logging;
mod output;
mod parse;
mod progress;
mod push;
mod redact;
mod run;
#[cfg(feature = "postgres")]
mod schema;
mod scratch;
mod shell;
mod signal;
mod start;
mod store;
mod tally;
mod watch;
mod words;
mod work;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Command::Run(run) => run::main(&args.global, *run),
        Command::Push(push) => push::main(&args.global, *push),
        Command::Work(work) => work::main(&args.global, *work),
        Command::Watch(watch) => watch::main(&args.global, &watch),
        Command::Store(command) => store::main(&args.global, command),
        Command::Completions(completions) => shell::completions(&completions),
        Command::Man(man) => shell::man(&man),
        Command::Conform(conform) => conform::main(&args.global, &conform),
        #[cfg(feature = "postgres")]
        Command::Schema(schema) => schema::main(&schema),
        Command::Bench(bench) => bench::main(&args.global, *bench),
        Command::Demo(demo) => demo::main(&args.global, *demo),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console::last_words(&failure);
            failure.exits().into()
        }
    }
}
