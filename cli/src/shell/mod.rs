//! `completions` and `man`: the files that a package installs beside the program.

pub(crate) mod args;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use self::args::{CompletionsArgs, ManArgs};
use crate::args::Args;
use crate::exit::{Exit, Failure};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "delayline", &mut script);
    out(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let mut program = Args::command();
    program.build();
    if let Some(dir) = &args.dir {
        fs::create_dir_all(dir).map_err(|e| Failure::io(format_args!("cannot create {}", dir.display()), &e))?;
        write_all(&program, dir)?;
        return Ok(Exit::Done);
    }
    let mut command = &program;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let name = command.get_bin_name().unwrap_or("delayline");
            Failure::new(format!("`{name}` has no command `{word}`; `{name} --help` lists them")).exit(Exit::Usage)
        })?;
    }
    out(&page(command)?)
}

fn write_all(command: &clap::Command, dir: &Path) -> Result<(), Failure> {
    // After `build()`, the display name of `work` is `delayline-work`.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|e| Failure::io(format_args!("cannot write {}", path.display()), &e))?;
    command.get_subcommands().try_for_each(|inner| write_all(inner, dir))
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(|e| Failure::io("cannot write the page", &e))?;
    Ok(page)
}

fn out(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|e| Failure::io("cannot write to stdout", &e))?;
    Ok(Exit::Done)
}
