//! What the driver and the broker say, as our errors.

use std::error::Error as _;
use std::{fmt, io};

use delayline_core::{Error, ErrorKind};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error as DriverError, ErrorKind as DriverKind};

use crate::config::RabbitConfig;

/// Why there is no connection. Nothing of the URL but host, port, user and virtual host is repeated.
pub(crate) fn connecting_failed(config: &RabbitConfig, e: &DriverError) -> Error {
    let server = config.server();
    match e.kind() {
        DriverKind::ProtocolError(said) => {
            let text = said.get_message().as_str();
            let (kind, what) = match said.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                    (ErrorKind::Denied, format!("{server} refused the password of user `{}`", config.user()))
                }
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("not found") => {
                    (ErrorKind::Config, format!("{server} has no virtual host `{}`", config.vhost()))
                }
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("refused for user") => (
                    ErrorKind::Denied,
                    format!("user `{}` may not use the virtual host `{}` at {server}", config.user(), config.vhost()),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                    (ErrorKind::Unavailable, format!("{server} lets nobody in now: {}", cut(text)))
                }
                _ => (ErrorKind::Unavailable, format!("{server} ended the connection: {}", cut(text))),
            };
            Error::new(kind, what)
        }
        DriverKind::IOError(of) | DriverKind::RuntimeShutdownError(of) => not_reached(&server, of),
        DriverKind::InvalidProtocolVersion(_) | DriverKind::ParsingError(_) | DriverKind::SerialisationError(_) => {
            Error::new(
                ErrorKind::Incompatible,
                format!("{server} does not answer as RabbitMQ does; is it one, and is its port right?"),
            )
        }
        _ => Error::new(ErrorKind::Unavailable, format!("{server} could not be connected to: {e}")),
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
            format!("{server} closed the connection during the greeting; is it RabbitMQ, and is its port right?"),
        ),
        _ => Error::new(ErrorKind::Unavailable, format!("{server} can't be reached")).with_source(source),
    }
}

/// What a failed request answers, and whether what it asked for may have happened.
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
                // A type, argument or value that the broker does not know.
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if text.contains("invalid arg") => {
                    (ErrorKind::Incompatible, format!("RabbitMQ 3.10 or newer is needed: {text}"))
                }
                _ => (lost, text),
            }
        }
        _ => (lost, format!("the connection was lost: {e}")),
    };
    let failed = Error::new(kind, format!("{doing}: {what}"));
    if is_internal_error(e) { failed.with_source(OfTheBroker) } else { failed }
}

/// The source of an error that the broker calls its own (541): the same request may work when it is made again.
#[derive(Debug)]
struct OfTheBroker;

impl fmt::Display for OfTheBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the broker's own, which its log explains")
    }
}

impl std::error::Error for OfTheBroker {}

fn is_internal_error(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)))
}

/// Whether the broker called it an error of its own.
pub(crate) fn is_of_the_broker(e: &Error) -> bool {
    e.source().is_some_and(|source| source.is::<OfTheBroker>())
}

/// What the broker said about a missing permission, with which one it is, where it is of a version that does not say so.
fn with_permission(doing: &str, text: String) -> String {
    let names_it = ["configure access", "write access", "read access"].iter().any(|access| text.contains(access));
    let first_named = format!("'{}'", doing.split('`').nth(1).unwrap_or_default());
    let wanted = match doing.split(' ').next() {
        _ if names_it => return text,
        Some("declaring" | "deleting") => "configure",
        // What is bound is written to, and what it is bound to is read.
        Some("binding") if text.contains(&first_named) => "write",
        Some("binding") => "read",
        Some("publishing" | "registering") => "write",
        _ => "read",
    };
    format!("{text}; it needs the permission `{wanted}` there")
}

/// No answer came in time.
pub(crate) fn silent(doing: &str, config: &RabbitConfig, sent: bool) -> Error {
    let kind = if sent { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{doing}: {} did not answer within {:?}", config.server(), config.response_timeout))
}

/// Whether it is the broker's word that this does not exist.
pub(crate) fn is_not_found(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

/// Whether it is the broker's word that this belongs to another connection.
pub(crate) fn is_locked(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED)))
}

/// Whether it is the broker's word that this exchange does not exist. It says so once, and ends the channel: a message that
/// was to go there was not accepted.
pub(crate) fn is_no_exchange(e: &DriverError, exchange: &str) -> bool {
    let quoted = format!("'{exchange}'");
    !exchange.is_empty()
        && is_not_found(e)
        && matches!(e.kind(), DriverKind::ProtocolError(said) if said.get_message().as_str().contains(&quoted))
}

/// Whether the driver did not send a message, because the channel had ended.
pub(crate) fn is_unsent(e: &DriverError) -> bool {
    matches!(e.kind(), DriverKind::InvalidChannelState(_, "basic.publish"))
}

/// The channel ended for a reason that is not this request's, which may have taken effect.
pub(crate) fn unknown(doing: &str, e: &DriverError) -> Error {
    Error::new(ErrorKind::Ambiguous, format!("{doing}: the channel ended: {}", cut(&e.to_string())))
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
