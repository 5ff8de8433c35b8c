//! What the driver and the server say, as our errors.
//!
//! Of what the server says only the message is repeated: its details hold rows, and so anybody's payload.

use std::borrow::Cow;
use std::io;

use delayline_core::{Error, ErrorKind};
use sqlx::Error as Driver;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::config::tls;

/// What a call does, and so what it means when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: the error is [`Unavailable`](ErrorKind::Unavailable).
    Read,
    /// A change: once it was sent, the error is [`Ambiguous`](ErrorKind::Ambiguous).
    Write,
    /// A change that may be made twice. On a connection that turns out to be dead it is sent again on a new one, so it
    /// needs no round trip before it; when its answer is lost even so, that is `Ambiguous`.
    Repeat,
}

/// What to do with the connection that an error came from, and with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// The server refused; nothing was done, and the connection is as good as before.
    Refused,
    /// Two transactions were in each other's way and this one was rolled back: it may be run again.
    Conflict,
    /// The connection is gone, or nobody knows what comes next on it.
    Lost,
}

/// What an error means for the connection.
pub(crate) fn aftermath(e: &Driver) -> Aftermath {
    match e {
        Driver::Database(said) => match code(&**said).as_ref() {
            "40001" | "40P01" => Aftermath::Conflict,
            code if ends_session(&**said, code) => Aftermath::Lost,
            _ => Aftermath::Refused,
        },
        // Told before anything was sent, or after everything was read.
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

/// What the server said, for people.
fn said(e: &dyn DatabaseError) -> String {
    let text: String = e.message().chars().take(300).collect();
    format!("{text} ({})", code(e))
}

/// Why a call failed on a connection that was there.
pub(crate) fn failed(what: &str, effect: Effect, e: Driver) -> Error {
    match (&e, aftermath(&e)) {
        (Driver::Database(said), Aftermath::Refused | Aftermath::Conflict) => refused(what, &**said),
        (Driver::Database(by), Aftermath::Lost) => lost(what, effect, &said(&**by)),
        (_, Aftermath::Refused | Aftermath::Conflict) => {
            Error::new(ErrorKind::Corrupt, format!("{what}: the answer has another shape: {e}"))
        }
        (Driver::Io(_), Aftermath::Lost) => lost(what, effect, "the connection was lost").with_source(e),
        (_, Aftermath::Lost) => lost(what, effect, &e.to_string()),
    }
}

/// The error of a call whose answer did not come.
pub(crate) fn lost(what: &str, effect: Effect, why: &str) -> Error {
    match effect {
        Effect::Read => Error::new(ErrorKind::Unavailable, format!("{what}: no answer from Postgres: {why}")),
        Effect::Write | Effect::Repeat => {
            Error::new(ErrorKind::Ambiguous, format!("{what}: it was sent, and its answer was lost: {why}"))
        }
    }
}

fn refused(what: &str, e: &dyn DatabaseError) -> Error {
    let code = code(e);
    let (kind, because) = match code.as_ref() {
        "53100" => (ErrorKind::Full, "the disk of Postgres is full"),
        "53200" => (ErrorKind::Unavailable, "Postgres is out of memory"),
        "42501" => (ErrorKind::Denied, "Postgres forbids it to this user"),
        "25006" => (ErrorKind::Unavailable, "Postgres takes no writes: it is a standby, or read-only"),
        "40001" | "40P01" => (ErrorKind::Busy, "others kept changing the same tasks"),
        "55P03" => (ErrorKind::Busy, "somebody else's transaction holds what is needed"),
        "57014" => (ErrorKind::Unavailable, "Postgres was stopped in the middle of it, and undid it"),
        // Named statements live in sessions, and sessions are changed under us.
        "26000" | "42P05" => (ErrorKind::Config, "there is a pooler in between; set `pooler=on`"),
        "3F000" | "42P01" | "42703" | "42883" => {
            (ErrorKind::Incompatible, "our tables are not there, or not as this version needs them")
        }
        code if code.starts_with("53") || code.starts_with("58") => {
            (ErrorKind::Unavailable, "Postgres can't do it now")
        }
        _ => (ErrorKind::Corrupt, "Postgres refused it"),
    };
    Error::new(kind, format!("{what}: {because}: {}", said(e)))
}

/// Why there is no connection.
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
        Driver::Configuration(_) | Driver::InvalidArgument(_) => {
            (ErrorKind::Config, format!("{server}: this address or these certificates can't be used").into())
        }
        Driver::Protocol(_) => (
            ErrorKind::Incompatible,
            format!("{server} does not answer as Postgres does; is it one, and is its port right?").into(),
        ),
        Driver::PoolTimedOut => {
            (ErrorKind::Unavailable, format!("{server}: the application's pool has no free connection").into())
        }
        Driver::PoolClosed => (ErrorKind::Closed, "the application's pool is closed".into()),
        _ => (ErrorKind::Unavailable, format!("{server} could not be connected to").into()),
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
    Error::new(kind, format!("{server} refused the connection: {}", said(e)))
}
