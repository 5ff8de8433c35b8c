//! The command line of delayline. Standard output carries results; messages for people go to standard error.

#![cfg_attr(
    not(all(feature = "lab", feature = "tui", feature = "metrics-server")),
    allow(dead_code, reason = "shared code is compiled no matter which commands are built")
)]

mod args;
#[cfg(feature = "lab")]
mod bench;
#[cfg(feature = "lab")]
mod conform;
mod console;
#[cfg(feature = "lab")]
mod demo;
mod exec;
mod exit;
mod global;
#[cfg(feature = "lab")]
mod heap;
mod input;
mod logging;
mod missing;
mod output;
mod parse;
mod progress;
mod push;
mod redact;
mod run;
#[cfg(feature = "postgres")]
mod schema;
#[cfg(feature = "lab")]
mod scratch;
mod shell;
mod signal;
mod start;
mod store;
mod tally;
#[cfg(feature = "tui")]
mod watch;
mod words;
mod work;

use std::process::ExitCode;

/// The laboratory has an allocator of its own in `heap`, which counts on top of this one.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc"), not(feature = "lab")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Command::Run(run) => run::main(&args.global, *run),
        Command::Push(push) => push::main(&args.global, *push),
        Command::Work(work) => work::main(&args.global, *work),
        #[cfg(feature = "tui")]
        Command::Watch(watch) => watch::main(&args.global, &watch),
        Command::Store(command) => store::main(&args.global, command),
        Command::Completions(completions) => shell::completions(&completions),
        Command::Man(man) => shell::man(&man),
        #[cfg(feature = "lab")]
        Command::Conform(conform) => conform::main(&args.global, &conform),
        #[cfg(feature = "postgres")]
        Command::Schema(schema) => schema::main(&schema),
        #[cfg(feature = "lab")]
        Command::Bench(bench) => bench::main(&args.global, *bench),
        #[cfg(feature = "lab")]
        Command::Demo(demo) => demo::main(&args.global, *demo),
        #[cfg(not(all(feature = "lab", feature = "tui")))]
        Command::Missing(missing) => missing.main(),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console::last_words(&failure);
            failure.exits().into()
        }
    }
}
