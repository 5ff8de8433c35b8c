//! A store's URL: its location, which the driver reads, and its options, which delayline reads.
//!
//! No error repeats text that may be part of a password. If a password contains a `?` that is not written as `%3F`, the
//! URL is split at it, and the rest of the password is taken for an option.

use std::borrow::Cow;
use std::time::Duration;

use delayline_core::{Error, ErrorKind, Result};

/// The form of a backend's URLs.
#[derive(Clone, Copy, Debug)]
pub struct UrlForm {
    /// What the URL is called in messages, with an article: `a Redis URL`.
    pub what: &'static str,
    /// Schemes in lower case: `redis`, `rediss`.
    pub schemes: &'static [&'static str],
    /// Names of all options.
    pub options: &'static [&'static str],
    /// Names of the options whose values may contain an `@`.
    pub options_with_at: &'static [&'static str],
    /// Former option names that are still accepted, each with the current name.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// One `name=value` option of a URL.
#[derive(Clone, Debug)]
pub struct UrlOption<'u> {
    form: UrlForm,
    name: &'static str,
    value: Cow<'u, str>,
}

impl UrlForm {
    /// Splits a URL into the part before the `?` and the options, with percent-encoding (`%3A`) decoded.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for another scheme, a `#`, an unknown option, or a `%` without two digits.
    pub fn split<'u>(&self, url: &'u str) -> Result<(&'u str, Vec<UrlOption<'u>>)> {
        let (place, query) = self.parts(url)?;
        Ok((place, options(query).map(|option| self.option(option)).collect::<Result<_>>()?))
    }

    /// Like [`split`](Self::split), but leaves the driver's options with these names in the first part, as they are
    /// written.
    ///
    /// # Errors
    /// Those of [`split`](Self::split).
    pub fn split_for_driver<'u>(&self, url: &'u str, names: &[&str]) -> Result<(String, Vec<UrlOption<'u>>)> {
        let (place, query) = self.parts(url)?;
        let (drivers, ours): (Vec<_>, Vec<_>) = options(query).partition(|option| names.contains(&parts(option).0));
        let separator = if drivers.is_empty() { "" } else { "?" };
        let ours = ours.into_iter().map(|option| self.option(option)).collect::<Result<_>>()?;
        Ok((format!("{place}{separator}{}", drivers.join("&")), ours))
    }

    /// The part before the `?`, and the part after it.
    fn parts<'u>(&self, url: &'u str) -> Result<(&'u str, &'u str)> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let what = self.what;
        if url.contains('#') {
            return Err(bad(format!("{what} can't contain `#`; in a password, write it as `%23`")));
        }
        let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !scheme.is_some_and(|scheme| self.schemes.contains(&scheme.as_str())) {
            let schemes: Vec<_> = self.schemes.iter().map(|scheme| format!("`{scheme}://`")).collect();
            return Err(bad(format!("{what} begins with {}", schemes.join(" or "))));
        }
        Ok((place, query))
    }

    fn option<'u>(&self, option: &'u str) -> Result<UrlOption<'u>> {
        let (name, value) = parts(option);
        let today = self.aliases.iter().find(|(former, _)| *former == name).map_or(name, |(_, today)| *today);
        let known = self.options.iter().find(|known| **known == today);
        if option.contains('@') && !known.is_some_and(|name| self.options_with_at.contains(name)) {
            return Err(bad(format!("in the password of {}, write `?` as `%3F`", self.what)));
        }
        let Some(name) = known else {
            let all = self.options.join(", ");
            return Err(bad(format!("{} has no option `{}`; there are {all}", self.what, shown(name))));
        };
        Ok(UrlOption { form: *self, name, value: self.decoded(name, value)? })
    }

    /// Decodes `%3A` and so on. A `+` stays a `+`.
    fn decoded<'u>(&self, name: &str, value: &'u str) -> Result<Cow<'u, str>> {
        if !value.contains('%') {
            return Ok(value.into());
        }
        let mut bytes = Vec::with_capacity(value.len());
        let mut rest = value.bytes();
        while let Some(byte) = rest.next() {
            let digit = |d: Option<u8>| d.and_then(|d| char::from(d).to_digit(16));
            bytes.push(match byte {
                b'%' => match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        let what = "expected two digits after `%`, such as `%3A`";
                        return Err(bad(format!("option `{name}` of {}: {what}", self.what)));
                    }
                },
                byte => byte,
            });
        }
        let text = String::from_utf8(bytes);
        text.map(Cow::from).map_err(|_| bad(format!("option `{name}` of {} is not UTF-8", self.what)))
    }
}

fn options(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|option| !option.is_empty())
}

/// The name and the value of an option, as they are written.
fn parts(option: &str) -> (&str, &str) {
    option.split_once('=').unwrap_or((option, ""))
}

impl UrlOption<'_> {
    /// Name of the option, one of the form's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Value of the option as text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.value
    }

    /// Value of the option as a whole number.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is not a whole number, or does not fit.
    pub fn whole<N: TryFrom<u64>>(&self) -> Result<N> {
        let n = self.value.parse::<u64>().map_err(|_| self.takes("a whole number"))?;
        N::try_from(n).map_err(|_| self.takes("a smaller number"))
    }

    /// Value of the option as a time such as `500ms` or `1m 30s`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is not a time.
    pub fn time(&self) -> Result<Duration> {
        humantime::parse_duration(&self.value).map_err(|_| self.takes("a time such as `500ms` or `5s`"))
    }

    /// Value of the option as a switch: `on`, `true` or `yes`; `off`, `false` or `no`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is something else.
    pub fn switch(&self) -> Result<bool> {
        match &*self.value {
            "on" | "true" | "yes" => Ok(true),
            "off" | "false" | "no" => Ok(false),
            _ => Err(self.takes("`on` or `off`")),
        }
    }

    /// The error for an invalid value. `takes` describes the valid ones.
    #[must_use]
    pub fn takes(&self, takes: &str) -> Error {
        bad(format!("option `{}` of {} takes {takes}", self.name, self.form.what))
    }

    /// The error for a known option that nobody has read, which is a bug in the backend.
    #[must_use]
    pub fn unread(&self) -> Error {
        bad(format!("option `{}` of {} has no effect", self.name, self.form.what))
    }
}

/// Creates a [`Config`](ErrorKind::Config) error.
pub fn bad(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// Checks that each time of a configuration is at least its minimum, in milliseconds, and at most a day.
///
/// # Errors
/// [`Config`](ErrorKind::Config), with the name of the time.
pub fn check_times(times: &[(&str, Duration, u64)]) -> Result<()> {
    for &(name, time, least_ms) in times {
        if time < Duration::from_millis(least_ms) || time > Duration::from_secs(86_400) {
            return Err(bad(format!("{name} must be {least_ms}ms to a day")));
        }
    }
    Ok(())
}

/// The name of an option, if a message may show it. Text that is not a name may be part of a secret.
fn shown(name: &str) -> &str {
    if name.len() <= 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') { name } else { "..." }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: UrlForm = UrlForm {
        what: "a Test URL",
        schemes: &["test", "tests"],
        options: &["size", "fallback_poll_interval", "listen", "other"],
        options_with_at: &["other"],
        aliases: &[("length", "size")],
    };

    #[test]
    fn a_url_is_taken_apart_and_its_options_are_read() {
        let url = "TESTS://me@host:1/x?size=7&&fallback_poll_interval=1m&listen=off&other=test%3A//me@h%C3%BC+";
        let (place, options) = FORM.split(url).unwrap();
        assert_eq!(place, "TESTS://me@host:1/x");
        let names: Vec<_> = options.iter().map(UrlOption::name).collect();
        assert_eq!(names, ["size", "fallback_poll_interval", "listen", "other"]);
        assert_eq!(options[0].whole::<u8>().unwrap(), 7);
        assert_eq!(options[1].time().unwrap(), Duration::from_secs(60));
        assert!(!options[2].switch().unwrap());
        assert_eq!(options[3].text(), "test://me@hü+");
    }

    #[test]
    fn a_former_name_of_an_option_is_read_as_that_of_today() {
        let (_, options) = FORM.split("test://host?length=7").unwrap();
        assert_eq!((options[0].name(), options[0].whole::<u8>().unwrap()), ("size", 7));
    }

    #[test]
    fn the_drivers_options_stay_with_the_place() {
        let split = |url| FORM.split_for_driver(url, &["user", "tls"]).unwrap();
        let (place, options) = split("test://host/x?tls=on&size=7&user=a%40b");
        assert_eq!((place.as_str(), options.len(), options[0].name()), ("test://host/x?tls=on&user=a%40b", 1, "size"));
        assert_eq!(split("test://host?size=7").0, "test://host");
        assert!(FORM.split_for_driver("test://me:hu?user@host", &["user"]).is_err(), "a part of a password");
    }

    #[test]
    fn clear_2_what_is_wrong_is_told() {
        for (url, says) in [
            ("redis://host", "a Test URL begins with `test://` or `tests://`"),
            ("test:", "begins with"),
            ("test://host#x", "can't contain `#`"),
            ("test://host?sise=1", "has no option `sise`; there are size, fallback_poll_interval, listen, other"),
            ("test://host?size", "option `size` of a Test URL takes a whole number"),
            ("test://host?size=256", "takes a smaller number"),
            ("test://host?fallback_poll_interval=soon", "such as `500ms`"),
            ("test://host?listen=maybe", "`on` or `off`"),
            ("test://host?other=%4", "two digits"),
            ("test://host?other=%ff", "not UTF-8"),
        ] {
            let read = FORM.split(url).and_then(|(_, options)| {
                let read = |option: &UrlOption<'_>| match option.name() {
                    "size" => option.whole::<u8>().map(drop),
                    "fallback_poll_interval" => option.time().map(drop),
                    "listen" => option.switch().map(drop),
                    _ => Ok(()),
                };
                options.iter().try_for_each(read)
            });
            let e = read.unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains(says), "{url}: {e}");
        }
    }

    #[test]
    fn clear_4_no_part_of_a_password_is_shown() {
        for url in [
            "test://me:hu?hunter2@host",
            "test://me:hu?hunter=2@host",
            "test://me:hu?size=hunter@host",
            "test://host?hunter2=1",
            "test://host?Hunter=1",
            "test://host#hunter2",
        ] {
            let e = FORM.split(url).map(drop).unwrap_err();
            assert!(!e.message().to_lowercase().contains("hunter"), "{url}: {e}");
        }
    }

    #[test]
    fn times_have_bounds() {
        let check = |ms| check_times(&[("wait", Duration::from_millis(ms), 5)]);
        assert!(check(5).is_ok() && check(86_400_000).is_ok());
        for bad in [4, 86_400_001] {
            assert_eq!(check(bad).unwrap_err().message(), "wait must be 5ms to a day");
        }
    }
}
