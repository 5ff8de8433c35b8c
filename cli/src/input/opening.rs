//! What an input is opened with, and how it is to be read.

use std::fs::File;
use std::path::PathBuf;

use super::format::Format;
use super::task::Rules;

/// How an input is to be read.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) rules: Rules,
    /// Read a file to its end even when the run is stopped, because its tasks are to be saved.
    pub(crate) to_the_end: bool,
}

/// A file that is open, or one that waits for somebody to write to it until it is.
pub(super) enum Opening {
    Open(File),
    Later(PathBuf),
}
