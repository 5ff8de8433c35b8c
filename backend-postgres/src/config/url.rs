//! Splits a URL into the part for the driver and the backend's options.

use delayline_backend_kit::options::bad;
use delayline_backend_kit::{UrlForm, UrlOption};
use delayline_core::Result;
use sqlx::postgres::PgConnectOptions;

use super::tls;

/// The form of Postgres URLs.
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
        "poll_interval",
        "flush_accepting",
        "flush_claims",
        "flush_completions",
        "migrate",
        "dead_letters_max",
        "payload_bytes_max",
        "operation_window",
        "fallback_poll_interval",
    ],
    options_with_at: &["listen_url"],
    aliases: &[],
};

/// The libpq options that the driver knows. The driver would log an unknown option with its value.
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

/// The driver's connection options, and the backend's options.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config). The message repeats nothing that might be a part of a secret.
pub(super) fn split(url: &str) -> Result<(PgConnectOptions, Vec<UrlOption<'_>>)> {
    let (server, options) = FORM.split_for_driver(url, &OF_LIBPQ)?;
    tls::check_certificates(tls::has_certificates(&server))?;
    // The driver's error may quote a part of the URL, which may hold a password.
    let server = server.parse().map_err(|_| {
        bad("invalid Postgres URL: use `postgres://[user[:password]@]host[:port][/database]?option=value&...`, \
             where `port` is a number and `sslmode` is disable, allow, prefer, require, verify-ca or verify-full")
    })?;
    Ok((server, options))
}
