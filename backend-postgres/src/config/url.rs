//! A URL, taken apart: what the driver is told, and what is ours.

use delayline_backend_kit::options::bad;
use delayline_backend_kit::{UrlForm, UrlOption};
use delayline_core::Result;
use sqlx::postgres::PgConnectOptions;

use super::tls;

/// What our URLs look like.
const FORM: UrlForm = UrlForm {
    what: "a Postgres URL",
    schemes: &["postgres", "postgresql"],
    options: &[
        "schema",
        "pool_size",
        "connect_timeout",
        "response_timeout",
        "pooler",
        "listen",
        "listen_url",
        "poll",
        "flush_accepting",
        "flush_claims",
        "flush_completions",
        "migrate",
        "dead_letters_max",
        "payload_bytes_max",
        "operation_window",
        "sweep",
    ],
    options_with_at: &["listen_url"],
};

/// Those of libpq that the driver knows. What it does not know it would log, with its value.
const OF_LIBPQ: [&str; 12] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "options",
];

/// How to connect, and our own options.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config); it repeats nothing that might be a part of a secret.
pub(super) fn split(url: &str) -> Result<(PgConnectOptions, Vec<UrlOption<'_>>)> {
    let (server, options) = FORM.split_for_driver(url, &OF_LIBPQ)?;
    tls::check_certificates(tls::has_certificates(&server))?;
    // What it says of a URL it can't read might hold a part of it.
    let server = server.parse().map_err(|_| {
        bad("a Postgres URL is `postgres://[user[:password]@]host[:port][/database]?option=value&...`, with a port's number, \
             and `sslmode` one of disable, allow, prefer, require, verify-ca and verify-full")
    })?;
    Ok((server, options))
}
