//! What a server can be asked for, whichever it is.

use std::fmt;
use std::time::Duration;

use super::error::Result;
use super::kind::Kind;
use crate::harness::Resources;

/// How long a server may take to come up.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);

/// A server that was started here.
pub trait Server: fmt::Debug + Send {
    /// What it is.
    fn kind(&self) -> Kind;

    /// Its version, as it says itself.
    fn version(&self) -> &str;

    /// The URL that a backend connects to.
    fn url(&self) -> String;

    /// Kills it as by `kill -9`: nothing is flushed.
    ///
    /// # Errors
    /// [`ServerError::Io`](super::ServerError::Io).
    fn kill(&mut self) -> Result<()>;

    /// Starts it again with its data, and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::Failed`](super::ServerError::Failed) with the end of its log.
    fn start(&mut self) -> Result<()>;

    /// Stops all its processes, as by `SIGSTOP`: its connections stay open, and nothing answers.
    ///
    /// # Errors
    /// [`ServerError::Io`](super::ServerError::Io).
    fn stop(&mut self) -> Result<()>;

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ServerError::Io`](super::ServerError::Io).
    fn resume(&mut self) -> Result<()>;

    /// Cuts every client's connection.
    ///
    /// # Errors
    /// [`ServerError::Failed`](super::ServerError::Failed).
    fn disconnect(&mut self) -> Result<()>;

    /// What it holds, as counts by name.
    ///
    /// # Errors
    /// [`ServerError::Failed`](super::ServerError::Failed).
    fn resources(&mut self) -> Result<Resources>;

    /// Its main process, for who measures its memory and time.
    fn pid(&self) -> u32;
}
