//! Why there is no server, or a command of one failed.

use super::kind::Kind;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its program is not on this machine.
    #[error("there is no `{program}` on this machine; install it with: scripts/servers install {kind}")]
    Missing {
        /// The program that was looked for.
        program: String,
        /// Whose it is.
        kind: Kind,
    },
    /// A release was asked for that is not there.
    #[error("there is no release `{name}` of {kind}; there are: {known}. Others: scripts/servers install --matrix")]
    NoRelease {
        /// The release.
        name: String,
        /// Whose.
        kind: Kind,
        /// Those that are there.
        known: String,
    },
    /// It did not come up, or a command failed.
    #[error("{what}{}", shown(log))]
    Failed {
        /// What was being done, and what came of it.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What it said.
        source: std::io::Error,
    },
}

fn shown(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
}

impl ServerError {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), log: String::new() }
    }
}

/// The result of every call here.
pub type Result<T, E = ServerError> = std::result::Result<T, E>;

pub(crate) fn io<T>(result: std::io::Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|source| ServerError::Io { what: what(), source })
}
