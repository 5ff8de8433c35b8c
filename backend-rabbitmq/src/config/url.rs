//! Configuration of a RabbitMQ backend by URL.

use delayline_backend_kit::options::bad;
use delayline_backend_kit::{UrlForm, UrlOption};
use delayline_core::Result;
use lapin::uri::AMQPUri;

use super::settings::RabbitConfig;

/// The form of AMQP URLs.
const FORM: UrlForm = UrlForm {
    what: "an AMQP URL",
    schemes: &["amqp", "amqps"],
    options: &[
        "namespace",
        "levels",
        "parallel",
        "margin",
        "hold_max",
        "hold_bytes_max",
        "lease_max",
        "heartbeat",
        "connect_timeout",
        "response_timeout",
        "dead_letters_max",
        "payload_bytes_max",
        "fallback_poll_interval",
        "publish_channels",
    ],
    options_with_at: &[],
    // Its name before 0.1.
    aliases: &[("name_space", "namespace")],
};

/// The error for an address that can't be parsed. It does not quote the driver, whose error may hold a part of the
/// address.
const PLACE: &str =
    "invalid AMQP URL: use `amqp://[user:password@]host[:port][/virtual-host]?option=value&...`, or `amqps://`";

impl RabbitConfig {
    /// Parses a URL: `amqp://[user:password@]host[:port][/virtual-host]`, or `amqps://` for TLS, with options such as
    /// `?namespace=exams&response_timeout=5s`. Percent-encode reserved characters in the user name, password and
    /// virtual host: `%2f` for `/`. Without a virtual host, or with an empty one, it is `/`.
    ///
    /// TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs` and uses the system's certificates.
    ///
    /// The options are `namespace`, `levels`, `parallel`, `margin`, `hold_max`, `hold_bytes_max`, `lease_max`,
    /// `heartbeat`, `connect_timeout`, `response_timeout`, `dead_letters_max`, `payload_bytes_max`,
    /// `fallback_poll_interval` and `publish_channels`. Each one is documented at the method of the same name.
    /// Durations are written as `500ms`, `5s` or `1m`, counts and sizes as whole numbers. Values may be
    /// percent-encoded.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for a malformed URL, an unknown option or a value out of range.
    pub fn from_url(url: &str) -> Result<Self> {
        let (place, options) = FORM.split(url)?;
        let (scheme, rest) = place.split_once("://").ok_or_else(|| bad(PLACE))?;
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.rsplit('@').next().is_none_or(|host| host.is_empty() || host.starts_with(':')) {
            return Err(bad(PLACE));
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut uri: AMQPUri = format!("{scheme}://{rest}").parse().map_err(|_| bad(PLACE))?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        let mut config = Self::of(uri);
        for option in &options {
            config.set(option)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, option: &UrlOption<'_>) -> Result<()> {
        match option.name() {
            "namespace" => option.text().clone_into(&mut self.namespace),
            "levels" => self.levels = option.whole()?,
            "parallel" => self.parallel = option.whole()?,
            "margin" => self.margin = option.time()?,
            "hold_max" => self.hold_max = option.whole()?,
            "hold_bytes_max" => self.hold_bytes_max = option.whole()?,
            "lease_max" => self.lease_max = option.time()?,
            "heartbeat" => self.heartbeat = option.time()?,
            "connect_timeout" => self.connect_timeout = option.time()?,
            "response_timeout" => self.response_timeout = option.time()?,
            "dead_letters_max" => self.dead_letters_max = option.whole()?,
            "payload_bytes_max" => self.payload_bytes_max = option.whole()?,
            "fallback_poll_interval" => self.fallback_poll_interval = option.time()?,
            "publish_channels" => self.publish_channels = option.whole()?,
            _ => return Err(option.unread()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delayline_core::ErrorKind;

    use super::*;

    #[test]
    fn urls_set_everything() {
        let config = RabbitConfig::from_url(
            "amqp://me:hunter2@example.org:7000/my%2fhost?namespace=exams&levels=10&parallel=4&margin=2s&hold_max=9\
             &lease_max=1m&heartbeat=3s&connect_timeout=2s&response_timeout=1500ms&dead_letters_max=7\
             &payload_bytes_max=8&fallback_poll_interval=10s&publish_channels=3",
        )
        .unwrap();
        assert_eq!((config.server().as_str(), config.user()), ("example.org:7000", "me"));
        assert_eq!(config.uri.authority.userinfo.password, "hunter2");
        assert_eq!((config.vhost(), config.namespace.as_str()), ("my/host", "exams"));
        assert_eq!((config.levels, config.parallel, config.hold_max), (10, 4, 9));
        assert_eq!((config.margin, config.lease_max), (Duration::from_secs(2), Duration::from_secs(60)));
        assert_eq!(config.driver_uri(8_192).query.heartbeat, Some(3));
        assert_eq!(config.driver_uri(8_192).query.connection_timeout, Some(2_000));
        assert_eq!(config.response_timeout, Duration::from_millis(1500));
        assert_eq!((config.dead_letters_max, config.payload_bytes_max, config.publish_channels), (7, 8, 3));
        assert_eq!(config.fallback_poll_interval, Duration::from_secs(10));
        for plain in ["AMQP://localhost", "amqp://localhost/", "amqp://localhost/%2F"] {
            let plain = RabbitConfig::from_url(plain).unwrap();
            assert_eq!(
                (plain.server().as_str(), plain.user(), plain.vhost()),
                ("localhost:5672", "guest", "/"),
                "{plain:?}"
            );
        }
    }

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        for (url, says) in [
            ("amqp:", "begins with `amqp://`"),
            ("memory:", "begins with"),
            ("amqp://", "amqp://[user"),
            ("amqp://:5672", "amqp://[user"),
            ("amqp://host:port", "amqp://[user"),
            ("amqp://host?shards=1", "no option `shards`"),
            ("amqp://host?parallel=17", "parallel must be 1 to 16"),
            ("amqp://host?parallel=", "whole number"),
            ("amqp://host?publish_channels=0", "publish_channels must be 1 to 64"),
            ("amqp://host?levels=25", "levels must be 1 to 21"),
            ("amqp://host?hold_max=0", "hold_max must be at least 1"),
            ("amqp://host?fallback_poll_interval=soon", "such as `500ms`"),
            ("amqp://host?fallback_poll_interval=2days", "fallback_poll_interval must be 1ms to a day"),
            ("amqp://host?hold_max=65536", "a smaller number"),
            ("amqp://host?heartbeat=2m", "heartbeat must be 1000ms to 60s"),
            ("amqp://host?namespace=a.b.c", "after the dot"),
            ("amqp://host?namespace=a.", "after the dot"),
            ("amqp://host?namespace=.b", "letters, digits"),
            ("amqp://host?namespace=a.q", "`q` is reserved"),
            ("amqp://host?namespace=", "letters, digits"),
            ("amqp://me:a#b@host", "can't contain `#`"),
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
