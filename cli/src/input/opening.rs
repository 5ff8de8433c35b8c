//! How an input is opened and read.

use std::fs::File;
use std::path::PathBuf;

use super::format::Format;
use super::task::Rules;

/// How an input is read.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) rules: Rules,
    /// Read a file to its end even when the run is stopped, because its tasks are to be saved.
    pub(crate) to_the_end: bool,
}

/// An open file, or a pipe whose opening waits for a writer.
pub(super) enum Opening {
    Open(File),
    Later(PathBuf),
}
