//! What the driver and the server say, as our errors.

use std::io;
use std::sync::Arc;

use delayline_core::{Error, ErrorKind};
use redis::{RedisError, ServerError, ServerErrorKind};

/// Why there is no connection.
///
/// What the server says then is not repeated: to a command that it does not know it answers with the arguments, and one
/// of them may be the password.
pub(crate) fn connecting_failed(server: &str, e: &RedisError) -> Error {
    let (kind, what) = match e.kind() {
        redis::ErrorKind::AuthenticationFailed => (ErrorKind::Denied, "refused the user name or password"),
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
            (ErrorKind::Incompatible, "does not answer as Redis does; is it one, and is its port right?")
        }
        redis::ErrorKind::RESP3NotSupported => {
            (ErrorKind::Incompatible, "does not know HELLO 3; Redis 6.2 or newer, or Valkey, is needed")
        }
        redis::ErrorKind::Server(ServerErrorKind::ResponseError) if speaks_of_database(e) => {
            (ErrorKind::Config, "has no database of that number")
        }
        redis::ErrorKind::Server(ServerErrorKind::NoPerm) => {
            (ErrorKind::Denied, "forbids HELLO, SELECT or AUTH to this user")
        }
        redis::ErrorKind::Server(ServerErrorKind::BusyLoading) => (ErrorKind::Unavailable, "is loading its data"),
        redis::ErrorKind::Extension | redis::ErrorKind::Server(_) => return refused_entry(server, e),
        redis::ErrorKind::Io => return not_reached(server, e),
        _ => (ErrorKind::Unavailable, "could not be connected to"),
    };
    Error::new(kind, format!("{server} {what}"))
}

fn speaks_of_database(e: &RedisError) -> bool {
    e.to_string().contains("switch database")
}

fn refused_entry(server: &str, e: &RedisError) -> Error {
    match e.code() {
        Some(code @ ("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
            let what = if code == "NOAUTH" { "wants a password" } else { "refused the user name or password" };
            Error::new(ErrorKind::Denied, format!("{server} {what}"))
        }
        Some("DENIED") => {
            Error::new(ErrorKind::Denied, format!("{server} is in protected mode and refuses other machines"))
        }
        Some("ERR") if e.detail().is_some_and(|text| text.contains("max number of clients")) => {
            Error::new(ErrorKind::Unavailable, format!("{server} has as many clients as its `maxclients` allows"))
        }
        Some("ERR") if e.detail().is_some_and(|text| text.contains("unknown command")) => Error::new(
            ErrorKind::Incompatible,
            format!("{server} does not know HELLO; is it Redis 6.2 or newer, or Valkey?"),
        ),
        _ => Error::new(ErrorKind::Unavailable, format!("{server} refused the connection")),
    }
}

fn not_reached(server: &str, e: &RedisError) -> Error {
    match io_error(e) {
        Some(of) if of.kind() == io::ErrorKind::InvalidData => {
            // TLS: not spoken here, or not trusted.
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

/// Why the server did not do as it was told. Redis 6.2 puts what a command within a script answered into a sentence of its
/// own, so its code is looked for there too.
pub(crate) fn refused(refusal: &ServerError, doing: &str) -> Error {
    let said = said(refusal);
    let is =
        |code: &str| refusal.code() == code || said.split([' ', ':']).any(|word| word.trim_start_matches('-') == code);
    let (kind, what) = if is("OOM") {
        (ErrorKind::Full, "Redis is out of memory (`maxmemory`)")
    } else if is("NOPERM") || said.contains("ACL failure") || said.contains("can't run this command") {
        (ErrorKind::Denied, "Redis forbids it to this user")
    } else if is("NOAUTH") || is("WRONGPASS") {
        (ErrorKind::Denied, "Redis wants to know who we are")
    } else if is("WRONGTYPE") {
        (ErrorKind::Corrupt, "another program's data is under one of our keys")
    } else if is("MOVED") || is("ASK") || is("CROSSSLOT") {
        (ErrorKind::Incompatible, "this is a node of a cluster, which is not supported")
    } else if is("READONLY") {
        (ErrorKind::Unavailable, "Redis has become a replica, and takes no writes")
    } else if ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS"]
        .iter()
        .any(|code| is(code))
    {
        (ErrorKind::Unavailable, "Redis can't do it now")
    } else if said.contains("unknown command") {
        (ErrorKind::Incompatible, "Redis does not know a command")
    } else {
        (ErrorKind::Corrupt, "Redis refused it")
    };
    Error::new(kind, format!("{doing}: {what}: {said}"))
}

/// What the server said, without the arguments that it repeats, which may be anybody's payload.
pub(crate) fn said(refusal: &ServerError) -> String {
    let details = refusal.details().unwrap_or_default();
    let details = details.split(", with args").next().unwrap_or_default();
    format!("{} {details}", refusal.code()).chars().take(300).collect()
}

pub(crate) fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
