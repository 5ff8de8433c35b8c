//! Maps errors of the driver and the server to delayline's errors.

use std::io;
use std::sync::Arc;

use delayline_core::{Error, ErrorKind};
use redis::{RedisError, ServerError, ServerErrorKind};

const NO_PASSWORD: &str = "authentication required: set user and password in the URL";
const WRONG_PASSWORD: &str = "wrong user name or password: check them in the URL";

/// The error for a connection that could not be opened.
///
/// It does not quote the server: Redis answers an unknown command with its arguments, and one of them may be the
/// password.
pub(crate) fn connecting_failed(server: &str, e: &RedisError) -> Error {
    let (kind, what) = match e.kind() {
        redis::ErrorKind::AuthenticationFailed => (ErrorKind::Denied, WRONG_PASSWORD),
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
            (ErrorKind::Incompatible, "the server did not answer like Redis: check host and port")
        }
        redis::ErrorKind::RESP3NotSupported => {
            (ErrorKind::Incompatible, "Redis 6.2 or newer, or Valkey, required: the server does not support HELLO 3")
        }
        redis::ErrorKind::Server(ServerErrorKind::ResponseError) if speaks_of_database(e) => {
            (ErrorKind::Config, "the server does not have this database: check the database number")
        }
        redis::ErrorKind::Server(ServerErrorKind::NoPerm) => {
            (ErrorKind::Denied, "this user may not run HELLO, SELECT or AUTH: grant them in the ACL")
        }
        redis::ErrorKind::Server(ServerErrorKind::BusyLoading) => {
            (ErrorKind::Unavailable, "the server is loading its data: try again later")
        }
        redis::ErrorKind::Extension | redis::ErrorKind::Server(_) => return refused_entry(server, e),
        redis::ErrorKind::Io => return not_reached(server, e),
        _ => (ErrorKind::Unavailable, "could not connect"),
    };
    Error::new(kind, format!("{server}: {what}"))
}

fn speaks_of_database(e: &RedisError) -> bool {
    e.to_string().contains("switch database")
}

fn refused_entry(server: &str, e: &RedisError) -> Error {
    match e.code() {
        Some(code @ ("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
            let what = if code == "NOAUTH" { NO_PASSWORD } else { WRONG_PASSWORD };
            Error::new(ErrorKind::Denied, format!("{server}: {what}"))
        }
        Some("DENIED") => {
            let what =
                "the server is in protected mode and refuses remote clients: set a password on it or turn the mode off";
            Error::new(ErrorKind::Denied, format!("{server}: {what}"))
        }
        Some("ERR") if e.detail().is_some_and(|text| text.contains("max number of clients")) => {
            let what = "the server has reached its `maxclients`: close other clients or raise the limit";
            Error::new(ErrorKind::Unavailable, format!("{server}: {what}"))
        }
        Some("ERR") if e.detail().is_some_and(|text| text.contains("unknown command")) => Error::new(
            ErrorKind::Incompatible,
            format!("{server}: Redis 6.2 or newer, or Valkey, required: the server does not support HELLO"),
        ),
        _ => Error::new(ErrorKind::Unavailable, format!("{server}: the server refused the connection")),
    }
}

fn not_reached(server: &str, e: &RedisError) -> Error {
    match io_error(e) {
        Some(of) if of.kind() == io::ErrorKind::InvalidData => {
            // The server does not speak TLS on this port, or its certificate is not trusted.
            Error::new(ErrorKind::Incompatible, format!("TLS with {server} failed")).with_source(e.clone())
        }
        _ => Error::new(ErrorKind::Unavailable, format!("{server} can't be reached")).with_source(e.clone()),
    }
}

fn io_error(e: &RedisError) -> Option<&io::Error> {
    let source = std::error::Error::source(e)?;
    let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
    source.downcast_ref().or_else(|| shared.and_then(|shared| shared.downcast_ref()))
}

/// The error for a command or script that the server refused. Redis 6.2 wraps the error of a command within a script
/// into a sentence, so this function looks for the error code in the text, too.
pub(crate) fn refused(refusal: &ServerError, doing: &str) -> Error {
    let said = said(refusal);
    let is =
        |code: &str| refusal.code() == code || said.split([' ', ':']).any(|word| word.trim_start_matches('-') == code);
    let (kind, what) = if is("OOM") {
        (ErrorKind::Full, "Redis is out of memory (`maxmemory`)")
    } else if is("NOPERM") || said.contains("ACL failure") || said.contains("can't run this command") {
        (ErrorKind::Denied, "permission denied for this Redis user")
    } else if is("NOAUTH") || is("WRONGPASS") {
        (ErrorKind::Denied, NO_PASSWORD)
    } else if is("WRONGTYPE") {
        (ErrorKind::Corrupt, "a key of this backend holds data of another program")
    } else if is("MOVED") || is("ASK") || is("CROSSSLOT") {
        (ErrorKind::Incompatible, "Redis Cluster is not supported: the server is a cluster node")
    } else if is("READONLY") {
        (ErrorKind::Unavailable, "Redis has become a read-only replica")
    } else if ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS"]
        .iter()
        .any(|code| is(code))
    {
        (ErrorKind::Unavailable, "Redis is temporarily unable to run this")
    } else if said.contains("unknown command") {
        (ErrorKind::Incompatible, "Redis does not know a required command")
    } else {
        (ErrorKind::Corrupt, "Redis returned an error")
    };
    Error::new(kind, format!("{doing}: {what}: {said}"))
}

/// The server's error text without the arguments that it repeats, which may contain a payload.
pub(crate) fn said(refusal: &ServerError) -> String {
    let details = refusal.details().unwrap_or_default();
    let details = details.split(", with args").next().unwrap_or_default();
    format!("{} {details}", refusal.code()).chars().take(300).collect()
}

pub(crate) fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
