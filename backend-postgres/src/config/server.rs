//! The server to connect to, and which commits it flushes to disk.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};

/// Where connections come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The backend opens its own connections.
    Server(Box<PgConnectOptions>),
    /// The application's pool.
    #[cfg_attr(not(any(test, feature = "sqlx-0_9")), allow(dead_code, reason = "only with sqlx's types in public"))]
    Pool(PgPool),
}

/// Which commits wait until they are on disk (`synchronous_commit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    pub(crate) accepting: bool,
    pub(crate) claims: bool,
    pub(crate) completions: bool,
}

/// Turns off two defaults of the driver: it logs every statement, and it sends the setting `extra_float_digits`, which
/// this backend does not need and PgBouncer refuses.
pub(super) fn quiet(server: PgConnectOptions) -> PgConnectOptions {
    server.disable_statement_logging().extra_float_digits(None)
}

/// A server's host and port, or its socket, for messages.
pub(crate) fn place(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}
