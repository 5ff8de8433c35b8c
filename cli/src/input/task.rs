//! Turns the fields of a line into a task, with every check that needs no store.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use delayline::{Attempts, Capabilities, Clock, Due, ErrorKind, GroupName, NewTask, SystemClock, TaskId, Timestamp};

use crate::parse::no_duration;

/// The fields of a line, as documented, for error messages.
pub(super) const FIELDS: &str = "`id`, `after`, `at`, `payload`, `group` or `expires`";

/// The fields of one line as text. An empty or missing field is `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) after: Option<Cow<'a, str>>,
    pub(super) at: Option<Cow<'a, str>>,
    pub(super) group: Option<Cow<'a, str>>,
    pub(super) expires: Option<Cow<'a, str>>,
    /// JSON, compact; `null` where none was given.
    pub(super) payload: Vec<u8>,
}

/// The rules that tasks are checked by.
#[derive(Debug)]
pub(crate) struct Rules {
    capabilities: Capabilities,
    attempts_max: Attempts,
    clock: SystemClock,
}

impl Rules {
    pub(crate) fn new(capabilities: Capabilities, attempts_max: Attempts) -> Self {
        Self { capabilities, attempts_max, clock: SystemClock::new() }
    }

    /// The task that a line describes, or what is wrong with the line.
    pub(super) fn task(&self, fields: Fields<'_>) -> Result<NewTask, String> {
        let due = match (fields.after, fields.at) {
            (Some(after), None) => Due::After(duration("after", &after)?),
            (None, Some(at)) => Due::At(self.instant(&at)?),
            (Some(_), Some(_)) => return Err("both `after` and `at` are given; expected exactly one of them".into()),
            (None, None) => return Err("neither `after` nor `at` is given; expected exactly one of them".into()),
        };
        let mut task = NewTask::new(due, Bytes::from(fields.payload)).attempts_max(self.attempts_max);
        task.id = fields.id.map(TaskId::new).transpose().map_err(message)?;
        task.group = fields.group.map(GroupName::new).transpose().map_err(message)?;
        task.expires = fields.expires.map(|text| self.expiry(&text)).transpose()?;
        self.check_times(&task)?;
        self.capabilities.check(&task).map_err(message)?;
        Ok(task)
    }

    /// Checks the times as the backend will by its clock, before anything is scheduled.
    fn check_times(&self, task: &NewTask) -> Result<(), String> {
        let is_after = |due| matches!(due, Due::After(_));
        // Durations are compared with each other, for which any instant will do.
        let only_durations = is_after(task.due) && task.expires.is_none_or(is_after);
        let now = if only_durations { Timestamp::from_unix_micros(0) } else { self.clock.wall() };
        let instant = |due: Due| due.instant(now);
        let (due, expires) = (instant(task.due), task.expires.map(instant));
        let too_far = |at: Timestamp| at.saturating_since(now) > self.capabilities.delay_max;
        if too_far(due) {
            return Err(self.out_of_range(if is_after(task.due) { "after" } else { "at" }));
        }
        if expires.is_some_and(too_far) {
            return Err(self.out_of_range("expires"));
        }
        if expires.is_some_and(|expires| expires < due) {
            return Err("`expires`: the task expires before it is due".to_owned());
        }
        Ok(())
    }

    fn instant(&self, text: &str) -> Result<Timestamp, String> {
        text.trim().parse().map_err(|e: delayline::Error| match e.kind() {
            ErrorKind::OutOfRange => self.out_of_range("at"),
            _ => format!("`at`: {}", e.message()),
        })
    }

    fn expiry(&self, text: &str) -> Result<Due, String> {
        if let Ok(after) = humantime::parse_duration(text.trim()) {
            return Ok(Due::After(after));
        }
        text.trim().parse().map(Due::At).map_err(|e: delayline::Error| match e.kind() {
            ErrorKind::OutOfRange => self.out_of_range("expires"),
            _ => format!(
                "`expires`: expected a duration such as 2h or an RFC 3339 time such as 2030-01-31T12:00:00Z, found {}",
                shown(text)
            ),
        })
    }

    fn out_of_range(&self, field: &str) -> String {
        format!("`{field}`: {}", self.capabilities.out_of_range().message())
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|e| {
        let (found, why) = (shown(text), no_duration(text, &e));
        format!("`{field}`: expected a duration such as 1500ms, 2h or 1h 30m, found {found}: {why}")
    })
}

/// The beginning of a text, in quotes.
pub(super) fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(64);
    format!("{:?}{}", &text[..end], if end < text.len() { "…" } else { "" })
}

fn message(e: delayline::Error) -> String {
    e.message().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let mut capabilities = Capabilities::minimal("test");
        capabilities.delay_max = Duration::from_secs(34 * 366 * 86_400);
        capabilities.groups = delayline::Support::Definite;
        capabilities.payload_bytes_max = 10;
        Rules::new(capabilities, Attempts::default())
    }

    fn fields<'a>(given: &[(&str, &'a str)]) -> Fields<'a> {
        let mut fields = Fields { payload: b"null".to_vec(), ..Fields::default() };
        for &(name, value) in given {
            let slot = match name {
                "id" => &mut fields.id,
                "after" => &mut fields.after,
                "at" => &mut fields.at,
                "group" => &mut fields.group,
                "expires" => &mut fields.expires,
                _ => unreachable!(),
            };
            *slot = Some(value.into());
        }
        fields
    }

    #[test]
    fn due_times_are_read_as_documented() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("1500ms", 1500), ("2h", 7_200_000), ("1h 30m", 5_400_000), (" 5s ", 5000)]
        {
            let task = rules().task(fields(&[("after", text)])).unwrap();
            assert_eq!(task.due, Due::After(Duration::from_millis(millis)), "{text}");
        }
        let task = rules().task(fields(&[("at", "2030-01-31T13:00:00+01:00"), ("expires", "2030-02-01T00:00:00Z")]));
        let task = task.unwrap();
        assert_eq!(task.due, Due::At("2030-01-31T12:00:00Z".parse().unwrap()));
        assert_eq!(task.expires, Some(Due::At("2030-02-01T00:00:00Z".parse().unwrap())));
        let past = rules().task(fields(&[("at", "1999-01-01T00:00:00Z"), ("expires", "2h")])).unwrap();
        assert_eq!(past.expires, Some(Due::After(Duration::from_secs(7200))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(257);
        for (given, says) in [
            (&[][..], "neither `after` nor `at`"),
            (&[("after", "1s"), ("at", "2030-01-31T12:00:00Z")], "both `after` and `at`"),
            (&[("after", "soon")], "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"soon\""),
            (&[("after", "5")], "found \"5\": the unit is missing, as in 5s or 5ms"),
            (&[("after", "-5s")], "found \"-5s\": it can't be negative"),
            (&[("after", "1H")], "the unit `H` is unknown"),
            (&[("after", "200y")], "`after`: the time is more than 34 years ahead"),
            (&[("after", "200y"), ("expires", "300y")], "`after`: the time is more than 34 years ahead"),
            (&[("at", "2226-01-01T00:00:00Z")], "`at`: the time is more than 34 years ahead"),
            (&[("at", "9999-12-31T23:59:59Z")], "`at`: the time is more than 34 years ahead"),
            (&[("at", "2026-02-30T00:00:00Z")], "got `2026-02-30T00:00:00Z`: there is no such day"),
            (&[("at", "tomorrow")], "`at`: expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `tomorrow`"),
            (&[("at", "2030-01-31T12:00:00")], "expected an RFC 3339 time"),
            (&[("after", "1s"), ("expires", "never")], "`expires`: expected a duration such as 2h or an RFC 3339 time"),
            (&[("after", "2s"), ("expires", "1s")], "`expires`: the task expires before it is due"),
            (
                &[("after", "2s"), ("expires", "9999-12-31T23:59:59Z")],
                "`expires`: the time is more than 34 years ahead",
            ),
            (&[("after", "2s"), ("expires", "1999-01-01T00:00:00Z")], "expires before it is due"),
            (&[("at", "2030-01-31T12:00:00Z"), ("expires", "0s")], "expires before it is due"),
            (&[("after", "2s"), ("expires", "2226-01-01T00:00:00Z")], "more than 34 years ahead"),
            (&[("after", "1s"), ("id", &long)], "is 257 bytes long; the limit is 256 bytes"),
            (&[("after", "1s"), ("id", "a\nb")], "control character"),
            (&[("after", "1s"), ("group", "a\tb")], "control character"),
        ] {
            let e = rules().task(fields(given)).unwrap_err();
            assert!(e.contains(says), "{given:?}: {e}");
        }
        let large = Fields { payload: b"\"123456789\"".to_vec(), ..fields(&[("after", "1s")]) };
        assert_eq!(rules().task(large).unwrap_err(), "payload is 11 bytes; the limit is 10 bytes");
    }
}
