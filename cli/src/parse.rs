//! Parsers for values on the command line. Errors are sentences for people.

use std::time::Duration;

use delayline::{Attempts, QueueName};

pub(crate) fn queue_name(text: &str) -> Result<QueueName, String> {
    QueueName::new(text).map_err(|e| e.message().to_owned())
}

pub(crate) fn attempts(text: &str) -> Result<Attempts, String> {
    let number = text.parse().map_err(|_| "expected a whole number".to_owned())?;
    Attempts::new(number).map_err(|e| e.message().to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; expected a duration such as 500ms, 10s or 1h 30m"))
}

pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration longer than zero".to_owned()),
        time => Ok(time),
    }
}
