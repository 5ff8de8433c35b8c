//! A URL, taken apart: what the driver is told, and what is ours.

use delayline_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnectOptions;

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

/// How to connect, and our own options, decoded.
///
/// # Errors
/// [`Config`](ErrorKind::Config); it repeats nothing that might be a part of a secret.
pub(super) fn split(url: &str) -> Result<(PgConnectOptions, Vec<(String, String)>)> {
    let (place, options) = url.split_once('?').unwrap_or((url, ""));
    if place.contains('#') || options.contains('#') {
        return Err(bad("a Postgres URL has no `#`; in a password it is written as `%23`"));
    }
    let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("postgres" | "postgresql")) {
        return Err(bad("a Postgres URL begins with `postgres://` or `postgresql://`"));
    }
    // A password with a `?` in it would be cut in two, and its end be taken for an option.
    if options.split('&').any(|option| option.split('=').next().is_some_and(|name| name.contains('@'))) {
        return Err(bad("a `?` in the password of a Postgres URL is written as `%3F`"));
    }
    let (mut of_libpq, mut ours) = (Vec::new(), Vec::new());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if OF_LIBPQ.contains(&name) {
            of_libpq.push(option);
        } else {
            ours.push((name.to_owned(), decoded(value)?));
        }
    }
    let separator = if of_libpq.is_empty() { "" } else { "?" };
    let server = format!("{place}{separator}{}", of_libpq.join("&"));
    // What it says of a URL it can't read might hold a part of it.
    let server = server.parse().map_err(|_| {
        bad("a Postgres URL is `postgres://[user[:password]@]host[:port][/database]?option=value&...`, with a port's number, \
             and `sslmode` one of disable, allow, prefer, require, verify-ca and verify-full")
    })?;
    Ok((server, ours))
}

/// `%3A` and so on are read; `+` stays what it is.
fn decoded(value: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let digit = |d: Option<u8>| d.and_then(|d| char::from(d).to_digit(16));
        bytes.push(match byte {
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).expect("two digits are a byte"),
                _ => return Err(bad("a `%` in a URL's option is followed by two digits, such as `%3A`")),
            },
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad("an option of a Postgres URL is no UTF-8"))
}

pub(super) fn bad(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// An option's name as it may stand in a message: what is none may be part of a secret.
pub(super) fn shown(name: &str) -> &str {
    if name.len() <= 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') { name } else { "..." }
}
