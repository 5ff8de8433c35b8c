//! Where connections go: the server as the driver is told, and which commits it has to flush.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};

/// Where connections come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// We make our own.
    Server(Box<PgConnectOptions>),
    /// The application's.
    Pool(PgPool),
}

/// Which commits wait until they are on the disk (`synchronous_commit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    pub(crate) accepting: bool,
    pub(crate) claims: bool,
    pub(crate) completions: bool,
}

/// Our statements are nobody's business but ours, where the driver's default is to log each. And it sends a setting that we
/// need not and PgBouncer does not let through.
pub(super) fn quiet(server: PgConnectOptions) -> PgConnectOptions {
    server.disable_statement_logging().extra_float_digits(None)
}

/// A server's host and port, or its socket, for people.
pub(crate) fn place(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}
