//! Maps errors of the driver and the server to delayline's errors.
//!
//! An error quotes only the server's message: its details may contain rows with payloads.

use std::borrow::Cow;
use std::io;

use delayline_core::{Error, ErrorKind};
use sqlx::Error as Driver;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::config::tls;

/// The effect of a call, which decides the error for a lost answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None: the error is [`Unavailable`](ErrorKind::Unavailable).
    Read,
    /// A change: once it was sent, the error is [`Ambiguous`](ErrorKind::Ambiguous).
    Write,
    /// A change that is safe to repeat. If the connection turns out to be dead, the call is sent again on a new one, so
    /// it does not need to check the connection first. If the answer to that is lost as well, the error is `Ambiguous`.
    Repeat,
}

/// What to do with the connection and the call after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// The server refused the call: nothing was done, and the connection still works.
    Refused,
    /// The transaction conflicted with another one and was rolled back: it may run again.
    Conflict,
    /// The connection is lost or in an unknown state.
    Lost,
}

/// The consequence of an error for the connection and the call.
pub(crate) fn aftermath(e: &Driver) -> Aftermath {
    match e {
        Driver::Database(said) => match code(&**said).as_ref() {
            "40001" | "40P01" => Aftermath::Conflict,
            code if ends_session(&**said, code) => Aftermath::Lost,
            _ => Aftermath::Refused,
        },
        // Raised before anything was sent, or after everything was read.
        Driver::RowNotFound
        | Driver::ColumnNotFound(_)
        | Driver::ColumnIndexOutOfBounds { .. }
        | Driver::ColumnDecode { .. }
        | Driver::Encode(_)
        | Driver::Decode(_) => Aftermath::Refused,
        _ => Aftermath::Lost,
    }
}

fn ends_session(said: &dyn DatabaseError, code: &str) -> bool {
    let severity = said.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic)) || code.starts_with("08") || code.starts_with("57P")
}

fn code(said: &dyn DatabaseError) -> Cow<'_, str> {
    said.code().unwrap_or_default()
}

/// The server's message and code.
fn said(e: &dyn DatabaseError) -> String {
    let text: String = e.message().chars().take(300).collect();
    format!("{text} ({})", code(e))
}

/// The error of a call that failed on an open connection.
pub(crate) fn failed(what: &str, effect: Effect, e: Driver) -> Error {
    match (&e, aftermath(&e)) {
        (Driver::Database(said), Aftermath::Refused | Aftermath::Conflict) => refused(what, &**said),
        (Driver::Database(by), Aftermath::Lost) => lost(what, effect, &said(&**by)),
        (_, Aftermath::Refused | Aftermath::Conflict) => {
            Error::new(ErrorKind::Corrupt, format!("{what}: unexpected answer: {e}"))
        }
        (Driver::Io(_), Aftermath::Lost) => lost(what, effect, "the connection was lost").with_source(e),
        (_, Aftermath::Lost) => lost(what, effect, &e.to_string()),
    }
}

/// The error of a call without an answer.
pub(crate) fn lost(what: &str, effect: Effect, why: &str) -> Error {
    match effect {
        Effect::Read => Error::new(ErrorKind::Unavailable, format!("{what}: no answer from Postgres: {why}")),
        Effect::Write | Effect::Repeat => {
            Error::new(ErrorKind::Ambiguous, format!("{what}: the call was sent, but its answer was lost: {why}"))
        }
    }
}

fn refused(what: &str, e: &dyn DatabaseError) -> Error {
    let code = code(e);
    let (kind, because) = match code.as_ref() {
        "53100" => (ErrorKind::Full, "the disk of Postgres is full"),
        "53200" => (ErrorKind::Unavailable, "Postgres is out of memory"),
        "42501" => (ErrorKind::Denied, "permission denied for this Postgres user"),
        "25006" => (ErrorKind::Unavailable, "Postgres is a read-only standby, or set to read-only"),
        "40001" | "40P01" => (ErrorKind::Busy, "other transactions kept changing the same tasks: try again"),
        "55P03" => (ErrorKind::Busy, "another transaction has locked a required row: try again after it ends"),
        "57014" => (ErrorKind::Unavailable, "Postgres cancelled the statement and rolled it back"),
        // Named statements belong to a session, and a pooler switches sessions between transactions.
        "26000" | "42P05" => (ErrorKind::Config, "the connection goes through a pooler: set `pooler=on`"),
        "3F000" | "42P01" | "42703" | "42883" => {
            (ErrorKind::Incompatible, "the tables of delayline are missing or of another version")
        }
        code if code.starts_with("53") || code.starts_with("58") => {
            (ErrorKind::Unavailable, "Postgres is temporarily unable to run this")
        }
        _ => (ErrorKind::Corrupt, "Postgres returned an error"),
    };
    Error::new(kind, format!("{what}: {because}: {}", said(e)))
}

/// The error for a connection that could not be opened.
pub(crate) fn connecting_failed(server: &str, e: &Driver) -> Error {
    let (kind, what): (_, Cow<'_, str>) = match e {
        Driver::Database(said) => return refused_entry(server, &**said),
        Driver::Io(of) if of.kind() == io::ErrorKind::InvalidData => {
            (ErrorKind::Incompatible, format!("TLS with {server} failed: {of}").into())
        }
        Driver::Io(of) => (ErrorKind::Unavailable, format!("{server} can't be reached: {of}").into()),
        // Of an application's pool: what is ours was checked before.
        Driver::Tls(of) if of.to_string().contains("without TLS support") => return tls::not_built(server),
        Driver::Tls(of) => (ErrorKind::Incompatible, format!("TLS with {server} failed: {of}").into()),
        Driver::Configuration(_) | Driver::InvalidArgument(_) => (
            ErrorKind::Config,
            format!("{server}: the driver can't use this address or these certificates: check them").into(),
        ),
        Driver::Protocol(_) => (
            ErrorKind::Incompatible,
            format!("{server}: the server did not answer like Postgres: check host and port").into(),
        ),
        Driver::PoolTimedOut => (
            ErrorKind::Unavailable,
            format!("{server}: the application's pool has no free connection: make it larger or release connections")
                .into(),
        ),
        Driver::PoolClosed => (ErrorKind::Closed, "the application's pool is closed".into()),
        _ => (ErrorKind::Unavailable, format!("{server}: could not connect").into()),
    };
    Error::new(kind, what.into_owned())
}

fn refused_entry(server: &str, e: &dyn DatabaseError) -> Error {
    let code = code(e);
    let kind = match code.as_ref() {
        "28P01" | "28000" | "42501" => ErrorKind::Denied,
        "3D000" => ErrorKind::Config,
        code if code.starts_with("53") || code.starts_with("57") || code.starts_with("08") => ErrorKind::Unavailable,
        _ => ErrorKind::Incompatible,
    };
    Error::new(kind, format!("{server}: the server refused the connection: {}", said(e)))
}
