//! Maps errors of the driver and the broker to delayline's errors.

use std::error::Error as _;
use std::{fmt, io};

use delayline_core::{Error, ErrorKind};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error as DriverError, ErrorKind as DriverKind};

use crate::config::RabbitConfig;

/// The error for a connection that could not be opened. Of the URL, it repeats only host, port, user and virtual host.
pub(crate) fn connecting_failed(config: &RabbitConfig, e: &DriverError) -> Error {
    let server = config.server();
    match e.kind() {
        DriverKind::ProtocolError(said) => {
            let text = said.get_message().as_str();
            let (kind, what) = match said.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => (
                    ErrorKind::Denied,
                    format!("{server}: wrong user name or password for user `{}`: check the URL", config.user()),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("not found") => (
                    ErrorKind::Config,
                    format!(
                        "{server}: the virtual host `{}` does not exist: create it or check the URL",
                        config.vhost()
                    ),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("refused for user") => (
                    ErrorKind::Denied,
                    format!(
                        "{server}: user `{}` has no access to the virtual host `{}`: grant it",
                        config.user(),
                        config.vhost()
                    ),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                    (ErrorKind::Unavailable, format!("{server}: the server accepts no connections now: {}", cut(text)))
                }
                _ => (ErrorKind::Unavailable, format!("{server}: the server closed the connection: {}", cut(text))),
            };
            Error::new(kind, what)
        }
        DriverKind::IOError(of) | DriverKind::RuntimeShutdownError(of) => not_reached(&server, of),
        DriverKind::InvalidProtocolVersion(_) | DriverKind::ParsingError(_) | DriverKind::SerialisationError(_) => {
            Error::new(
                ErrorKind::Incompatible,
                format!("{server}: the server did not answer like RabbitMQ: check host and port"),
            )
        }
        _ => Error::new(ErrorKind::Unavailable, format!("{server}: could not connect: {e}")),
    }
}

fn not_reached(server: &str, of: &io::Error) -> Error {
    let source = io::Error::new(of.kind(), of.to_string());
    match of.kind() {
        io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Incompatible, format!("TLS with {server} failed")).with_source(source)
        }
        io::ErrorKind::ConnectionAborted => Error::new(
            ErrorKind::Unavailable,
            format!(
                "{server}: the server closed the connection in the handshake, RabbitMQ required: check host and port"
            ),
        ),
        _ => Error::new(ErrorKind::Unavailable, format!("{server} can't be reached")).with_source(source),
    }
}

/// The error of a failed request. `sent` tells whether the request may have taken effect.
pub(crate) fn failed(doing: &str, e: &DriverError, sent: bool) -> Error {
    let lost = if sent { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
    let (kind, what) = match e.kind() {
        DriverKind::ProtocolError(said) => {
            let text = cut(said.get_message().as_str());
            match said.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => (ErrorKind::Denied, with_permission(doing, text)),
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => (ErrorKind::Unavailable, text),
                AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => (ErrorKind::Busy, text),
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if text.contains("inequivalent arg") => {
                    (ErrorKind::Config, text)
                }
                // A type, argument or value that the broker does not support.
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if text.contains("invalid arg") => {
                    (ErrorKind::Incompatible, format!("RabbitMQ 3.10 or newer required: {text}"))
                }
                _ => (lost, text),
            }
        }
        _ => (lost, format!("the connection was lost: {e}")),
    };
    let failed = Error::new(kind, format!("{doing}: {what}"));
    if is_internal_error(e) { failed.with_source(OfTheBroker) } else { failed }
}

/// The source of an internal error of the broker (541). The same request may work when it is repeated.
#[derive(Debug)]
struct OfTheBroker;

impl fmt::Display for OfTheBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("internal error of the broker: see its log")
    }
}

impl std::error::Error for OfTheBroker {}

fn is_internal_error(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)))
}

/// Whether it is an internal error of the broker.
pub(crate) fn is_of_the_broker(e: &Error) -> bool {
    e.source().is_some_and(|source| source.is::<OfTheBroker>())
}

/// The broker's text about a missing permission. Some versions don't name the permission; then this function adds it.
fn with_permission(doing: &str, text: String) -> String {
    let names_it = ["configure access", "write access", "read access"].iter().any(|access| text.contains(access));
    let first_named = format!("'{}'", doing.split('`').nth(1).unwrap_or_default());
    let wanted = match doing.split(' ').next() {
        _ if names_it => return text,
        Some("declaring" | "deleting") => "configure",
        // A binding needs write access to the bound object, and read access to the exchange that it is bound to.
        Some("binding") if text.contains(&first_named) => "write",
        Some("binding") => "read",
        Some("publishing" | "registering") => "write",
        _ => "read",
    };
    format!("{text}: grant the permission `{wanted}` on it")
}

/// The error for an answer that did not arrive in time.
pub(crate) fn silent(doing: &str, config: &RabbitConfig, sent: bool) -> Error {
    let kind = if sent { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{doing}: {} did not answer within {:?}", config.server(), config.response_timeout))
}

/// Whether the broker reports that the object does not exist.
pub(crate) fn is_not_found(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

/// Whether the broker reports that the object is exclusive to another connection.
pub(crate) fn is_locked(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED)))
}

/// Whether the broker reports that this exchange does not exist. It reports this once and closes the channel. Messages
/// to the exchange were not accepted.
pub(crate) fn is_no_exchange(e: &DriverError, exchange: &str) -> bool {
    let quoted = format!("'{exchange}'");
    !exchange.is_empty()
        && is_not_found(e)
        && matches!(e.kind(), DriverKind::ProtocolError(said) if said.get_message().as_str().contains(&quoted))
}

/// Whether the driver did not send a message because the channel was closed.
pub(crate) fn is_unsent(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::InvalidChannelState(_, "basic.publish"))
}

/// The error of a request that may have taken effect, on a channel that was closed for another reason.
pub(crate) fn unknown(doing: &str, e: &DriverError) -> Error {
    Error::new(ErrorKind::Ambiguous, format!("{doing}: the channel was closed: {}", cut(&e.to_string())))
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
