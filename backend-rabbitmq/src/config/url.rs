//! How a RabbitMQ backend is set up by a URL.

use delayline_core::Result;
use lapin::uri::AMQPUri;

use super::settings::{RabbitConfig, bad};

const FORM: &str = "an AMQP URL is `amqp://[user:password@]host[:port][/virtual-host]?option=value&...`, or `amqps://`";

/// A URL's options, for messages.
const OPTIONS: &str = "name_space, levels, parallel, margin, hold_max, hold_bytes_max, lease_max, heartbeat, connect_timeout, \
                       response_timeout, dead_letters_max, payload_bytes_max, sweep and publish_channels";

impl RabbitConfig {
    /// Reads a URL: `amqp://[user:password@]host[:port][/virtual-host]`, or `amqps://` for TLS, with options such as
    /// `?name_space=exams&response_timeout=5s`. In a user name, password or virtual host, what has a meaning in a URL is
    /// written as `%2f` and so on; without a virtual host, or with an empty one, it is `/`.
    ///
    /// The options are named as the methods here. Times are written as `500ms`, `5s` or `1m`, the others as whole numbers.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for anything else.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = url.split_once('?').unwrap_or((url, ""));
        if options.contains(['@', '#']) || server.contains('#') {
            return Err(bad("an AMQP URL has no `#`, and a `?` in its password is written as `%3F`"));
        }
        let Some((scheme, rest)) = server.split_once("://") else { return Err(bad(FORM)) };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "amqp" | "amqps") {
            return Err(bad(FORM));
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.rsplit('@').next().is_none_or(|host| host.is_empty() || host.starts_with(':')) {
            return Err(bad(FORM));
        }
        // What it says of a URL it can't read might hold a part of it.
        let mut uri: AMQPUri = format!("{scheme}://{rest}").parse().map_err(|_| bad(FORM))?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        let mut config = Self::of(uri);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            config.set(name, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let whole =
            || value.parse::<u64>().map_err(|_| bad(format!("option `{name}` of an AMQP URL takes a whole number")));
        let time = || {
            let time = humantime::parse_duration(value);
            time.map_err(|_| bad(format!("option `{name}` of an AMQP URL takes a time such as `500ms` or `5s`")))
        };
        match name {
            "name_space" => value.clone_into(&mut self.name_space),
            "levels" => self.levels = u32::try_from(whole()?).unwrap_or(u32::MAX),
            "parallel" => self.parallel = u16::try_from(whole()?).unwrap_or(u16::MAX),
            "margin" => self.margin = time()?,
            "hold_max" => self.hold_max = u16::try_from(whole()?).unwrap_or(0),
            "hold_bytes_max" => self.hold_bytes_max = usize::try_from(whole()?).unwrap_or(usize::MAX),
            "lease_max" => self.lease_max = time()?,
            "heartbeat" => self.heartbeat = time()?,
            "connect_timeout" => self.connect_timeout = time()?,
            "response_timeout" => self.response_timeout = time()?,
            "dead_letters_max" => self.dead_letters_max = u32::try_from(whole()?).unwrap_or(u32::MAX),
            "payload_bytes_max" => self.payload_bytes_max = usize::try_from(whole()?).unwrap_or(usize::MAX),
            "sweep" => self.sweep = time()?,
            "publish_channels" => self.publish_channels = u16::try_from(whole()?).unwrap_or(u16::MAX),
            _ => return Err(bad(format!("an AMQP URL has no option `{}`; there are {OPTIONS}", shown(name)))),
        }
        Ok(())
    }
}

/// An option's name as it may stand in a message: what is none may be part of a secret.
fn shown(name: &str) -> &str {
    if name.len() <= 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') { name } else { "..." }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::ErrorKind;

    use super::*;

    #[test]
    fn urls_set_everything() {
        let config = RabbitConfig::from_url(
            "amqp://me:hunter2@example.org:7000/my%2fhost?name_space=exams&levels=10&parallel=4&margin=2s&hold_max=9\
             &lease_max=1m&heartbeat=3s&connect_timeout=2s&response_timeout=1500ms&dead_letters_max=7\
             &payload_bytes_max=8&sweep=10s&publish_channels=3",
        )
        .unwrap();
        assert_eq!((config.server().as_str(), config.user()), ("example.org:7000", "me"));
        assert_eq!(config.uri.authority.userinfo.password, "hunter2");
        assert_eq!((config.vhost(), config.name_space.as_str()), ("my/host", "exams"));
        assert_eq!((config.levels, config.parallel, config.hold_max), (10, 4, 9));
        assert_eq!((config.margin, config.lease_max), (Duration::from_secs(2), Duration::from_secs(60)));
        assert_eq!(config.driver_uri(8_192).query.heartbeat, Some(3));
        assert_eq!(config.driver_uri(8_192).query.connection_timeout, Some(2_000));
        assert_eq!(config.response_timeout, Duration::from_millis(1500));
        assert_eq!((config.dead_letters_max, config.payload_bytes_max, config.publish_channels), (7, 8, 3));
        assert_eq!(config.sweep, Duration::from_secs(10));
        for plain in ["AMQPS://localhost", "amqps://localhost/", "amqps://localhost/%2F"] {
            let plain = RabbitConfig::from_url(plain).unwrap();
            assert_eq!(
                (plain.server().as_str(), plain.user(), plain.vhost()),
                ("localhost:5671", "guest", "/"),
                "{plain:?}"
            );
        }
    }

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        for (url, says) in [
            ("amqp:", "amqp://[user"),
            ("memory:", "amqp://[user"),
            ("amqp://", "amqp://[user"),
            ("amqp://:5672", "amqp://[user"),
            ("amqp://host:port", "amqp://[user"),
            ("amqp://host?shards=1", "no option `shards`"),
            ("amqp://host?parallel=17", "1 to 16 parallel"),
            ("amqp://host?parallel=", "whole number"),
            ("amqp://host?publish_channels=0", "1 to 64 channels"),
            ("amqp://host?levels=25", "1 to 21 levels"),
            ("amqp://host?hold_max=0", "hold_max is 1"),
            ("amqp://host?sweep=soon", "such as `500ms`"),
            ("amqp://host?heartbeat=2m", "heartbeat is 1000ms to 60s"),
            ("amqp://host?name_space=a.b.c", "behind the dot"),
            ("amqp://host?name_space=a.", "behind the dot"),
            ("amqp://host?name_space=.b", "letters, digits"),
            ("amqp://host?name_space=a.q", "can't be `q`"),
            ("amqp://host?name_space=", "letters, digits"),
            ("amqp://me:a#b@host", "no `#`"),
            ("amqp://me:a?b@host", "%3F"),
            ("amqp://host?payload_bytes_max=99000000", "at most"),
        ] {
            let e = RabbitConfig::from_url(url).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{url}");
            assert!(e.message().contains(says), "{url}: {e}");
        }
    }

    #[test]
    fn clear_3_a_password_is_never_shown() {
        let secret = "hunter2hunter2";
        let config = RabbitConfig::from_url(&format!("amqp://me:{secret}@example.org")).unwrap();
        assert!(!format!("{config:?}").contains(secret));
        for url in [
            format!("amqp://me:{secret}@example.org:port"),
            format!("amqp://me:{secret}?@example.org"),
            format!("amqp://me:{secret}"),
            format!("amqp://example.org?{secret}=1"),
        ] {
            if let Err(e) = RabbitConfig::from_url(&url) {
                assert!(!format!("{e} {e:?}").contains(secret), "{e:?}");
            }
        }
    }
}
