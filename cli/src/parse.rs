//! Parsers for values on the command line. Errors are sentences for people.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use delayline::{Attempts, QueueName, limits};
use humantime::DurationError;

pub(crate) fn queue_name(text: &str) -> Result<QueueName, String> {
    QueueName::new(text).map_err(|e| e.message().to_owned())
}

pub(crate) fn attempts(text: &str) -> Result<Attempts, String> {
    let number = whole(1, limits::ATTEMPTS_MAX)(text)?;
    Attempts::new(number).map_err(|e| e.message().to_owned())
}

/// The parser for whole numbers in a range.
pub(crate) fn whole<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text: &str| match text.parse::<T>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("expected a whole number from {min} to {max}")),
    }
}

/// A whole number above 0.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let what = "expected an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464; host names are not resolved";
    text.parse().map_err(|_| what.to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|e| format!("{}; expected a duration such as 500ms, 10s or 1h 30m", no_duration(text, &e)))
}

pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration longer than zero".to_owned()),
        time => Ok(time),
    }
}

/// What is wrong with a duration.
pub(crate) fn no_duration(text: &str, e: &DurationError) -> String {
    match e {
        DurationError::Empty => "it is empty".to_owned(),
        _ if text.trim_start().starts_with('-') => "it can't be negative".to_owned(),
        DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
            format!("the unit is missing, as in {value}s or {value}ms")
        }
        DurationError::UnknownUnit { unit, .. } => {
            format!("the unit `{unit}` is unknown; use ms, s, m (minutes), h, d or w")
        }
        DurationError::NumberExpected(_) => "each unit needs a number in front of it".to_owned(),
        DurationError::InvalidCharacter(_) => "only numbers with units are allowed".to_owned(),
        DurationError::NumberOverflow => "the number is too large or too precise".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_value_is_named() {
        for (text, says) in [
            ("", "it is empty; expected a duration such as"),
            ("-5s", "it can't be negative; expected"),
            ("5", "the unit is missing, as in 5s or 5ms; expected"),
            ("1H", "the unit `H` is unknown; use ms, s, m (minutes), h, d or w; expected"),
            ("soon", "each unit needs a number in front of it; expected"),
            ("1h,5m", "only numbers with units are allowed; expected"),
            ("99999999999999999999s", "the number is too large or too precise; expected"),
        ] {
            let e = duration(text).unwrap_err();
            assert!(e.starts_with(says), "{text}: {e}");
        }
        for text in ["0", "10001", "5000000000", "-1", "x"] {
            assert_eq!(attempts(text).unwrap_err(), "expected a whole number from 1 to 10000", "{text}");
        }
        for text in ["0", "-1", "x", "99999999999999999999"] {
            assert_eq!(positive(text).unwrap_err(), "expected a whole number above 0", "{text}");
        }
        for text in ["9464", "localhost:9464", ":9464", "127.0.0.1"] {
            assert!(address(text).unwrap_err().contains("such as 127.0.0.1:9464"), "{text}");
        }
        assert_eq!((whole(8_u32, 10)("10"), positive("7")), (Ok(10), Ok(7)));
    }
}
