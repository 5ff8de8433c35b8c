//! Reading tasks: a thread reads lines, turns them into tasks, and passes these on in batches.

mod batch;
mod csv;
pub(crate) mod format;
mod ids;
mod jsonl;
mod lines;
mod opening;
mod reader;
mod task;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc;

pub(crate) use self::batch::Batch;
use self::format::Format;
use self::opening::Opening;
pub(crate) use self::opening::Options;
pub(crate) use self::task::Rules;
use crate::console::Console;
use crate::exit::Failure;
use crate::signal::Stop;

/// The source of the tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Stdin,
}

impl Source {
    /// The source named on the command line: `-` and no file are stdin.
    pub(crate) fn named(file: Option<PathBuf>) -> Self {
        match file {
            Some(path) if path.as_os_str() != "-" => Self::File(path),
            Some(_) | None => Self::Stdin,
        }
    }

    /// CSV if the name ends in `.csv`, otherwise JSON lines.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::File(path) if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv")) => {
                Format::Csv
            }
            Self::File(_) | Self::Stdin => Format::Jsonl,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

/// An input that is being read.
#[derive(Debug)]
pub(crate) struct Input {
    /// The name to print before line numbers.
    pub(crate) name: String,
    /// Whether the input is a stream, rather than a file.
    pub(crate) is_stream: bool,
    /// The batches, until the input ends or reading fails. At most one batch waits here.
    pub(crate) batches: mpsc::Receiver<Result<Batch, Failure>>,
}

/// Opens an input and starts reading it. Bad lines are reported on the console at once.
pub(crate) fn open(source: &Source, options: Options, console: Arc<Console>, stop: Stop) -> Result<Input, Failure> {
    let name = source.to_string();
    let cannot = |e: io::Error| Failure::io(format_args!("cannot read {name}"), &e);
    let opening = match source {
        Source::Stdin => Opening::Open(io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?.into()),
        Source::File(path) => match std::fs::metadata(path).map_err(cannot)? {
            found if found.is_dir() => return Err(Failure::new(format!("cannot read {name}: it is a directory"))),
            found if found.is_file() => Opening::Open(File::open(path).map_err(cannot)?),
            // Opening a pipe waits for somebody to write to it, and so belongs to the thread.
            _ => Opening::Later(path.clone()),
        },
    };
    let is_stream = match &opening {
        Opening::Open(file) => {
            let found = file.metadata().map_err(cannot)?;
            if found.is_dir() {
                return Err(Failure::new(format!("cannot read {name}: it is a directory")));
            }
            !found.is_file()
        }
        Opening::Later(_) => true,
    };
    let (sender, batches) = mpsc::channel(1);
    let reading = reader::Reading { name: name.clone(), is_stream, options, console, stop, sender };
    thread::Builder::new()
        .name("input".into())
        .spawn(move || reading.run(opening))
        .map_err(|e| Failure::io("cannot start a thread", &e))?;
    Ok(Input { name, is_stream, batches })
}
