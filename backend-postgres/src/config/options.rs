//! A configuration from a URL: each option sets what the method of its name sets.

use std::time::Duration;

use delayline_core::Result;

use crate::config::server::Source;
use crate::config::settings::PostgresConfig;
use crate::config::url::{bad, shown, split};

/// A URL's options of ours, for messages.
const OPTIONS: &str = "schema, pool_size, connect_timeout, response_timeout, pooler, listen, listen_url, poll, \
                       flush_accepting, flush_claims, flush_completions, migrate, dead_letters_max, payload_bytes_max, \
                       operation_window and sweep";

impl PostgresConfig {
    /// Reads a URL: `postgres://[user[:password]@]host[:port][/database]`, with options such as
    /// `?schema=exams&response_timeout=5s`. In a user name or password, what has a meaning in a URL is written as `%3F` and
    /// so on. What is missing is taken from the environment (`PGUSER`, `PGPASSWORD`, ...) and `~/.pgpass`, as `psql` does.
    ///
    /// The options are named as the methods here: `schema`, `pool_size`, `connect_timeout`, `response_timeout`, `pooler`,
    /// `listen`, `listen_url`, `poll`, `flush_accepting`, `flush_claims`, `flush_completions`, `migrate`, `dead_letters_max`,
    /// `payload_bytes_max`, `operation_window` and `sweep`. Times are written as `500ms`, `5s` or `1m`, yes and no as `on`
    /// and `off`, the others as whole numbers. Those of libpq that concern the connection may stand there too: `host`,
    /// `port`, `dbname`, `user`, `password`, `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `application_name` and
    /// `options`.
    ///
    /// TLS is used where the server offers it (`sslmode=prefer`), and its certificate is checked by `sslmode=verify-full`
    /// only, as everywhere with PostgreSQL.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config) for anything else.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = split(url)?;
        let mut config = Self::of(Source::Server(Box::new(server)));
        for (name, value) in options {
            config.set(&name, &value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "schema" => value.clone_into(&mut self.schema),
            "pool_size" => self.pool_size = u32::try_from(whole(name, value)?).unwrap_or(u32::MAX),
            "connect_timeout" => self.connect_timeout = time(name, value)?,
            "response_timeout" => self.response_timeout = time(name, value)?,
            "pooler" => self.pooler = yes(name, value)?,
            "listen" => self.listen = yes(name, value)?,
            "listen_url" => *self = self.clone().listen_url(value)?,
            "poll" => self.poll = time(name, value)?,
            "flush_accepting" => self.flush.accepting = yes(name, value)?,
            "flush_claims" => self.flush.claims = yes(name, value)?,
            "flush_completions" => self.flush.completions = yes(name, value)?,
            "migrate" => self.migrate = yes(name, value)?,
            "dead_letters_max" => self.dead_letters_max = whole(name, value)?,
            "payload_bytes_max" => self.payload_bytes_max = whole(name, value)?,
            "operation_window" => self.operation_window = time(name, value)?,
            "sweep" => self.sweep = time(name, value)?,
            _ => return Err(bad(format!("a Postgres URL has no option `{}`; there are {OPTIONS}", shown(name)))),
        }
        Ok(())
    }
}

fn whole(name: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| bad(format!("option `{name}` of a Postgres URL takes a whole number")))
}

fn time(name: &str, value: &str) -> Result<Duration> {
    humantime::parse_duration(value)
        .map_err(|_| bad(format!("option `{name}` of a Postgres URL takes a time such as `500ms` or `5s`")))
}

fn yes(name: &str, value: &str) -> Result<bool> {
    match value {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        _ => Err(bad(format!("option `{name}` of a Postgres URL takes `on` or `off`"))),
    }
}

#[cfg(test)]
mod tests {
    use delayline_core::ErrorKind;
    use sqlx::postgres::PgSslMode;

    use super::*;
    use crate::config::server::{Flush, place};

    #[test]
    fn urls_set_everything() {
        let config = PostgresConfig::from_url(
            "postgres://me:hunter2@example.org:7000/exams?sslmode=require&application_name=app&schema=x&pool_size=3\
             &connect_timeout=2s&response_timeout=1500ms&pooler=on&listen=on&poll=2s&flush_accepting=off\
             &flush_claims=off&flush_completions=off&migrate=off&dead_letters_max=7&payload_bytes_max=8\
             &operation_window=9s&sweep=10s&listen_url=postgres%3A%2F%2Fme%3Ahunter2%40direct%3A5433%2Fexams",
        )
        .unwrap();
        let server = config.server();
        assert_eq!((place(&server).as_str(), server.get_username()), ("example.org:7000", "me"));
        assert_eq!((server.get_database(), server.get_application_name()), (Some("exams"), Some("app")));
        assert!(matches!(server.get_ssl_mode(), PgSslMode::Require));
        assert_eq!((config.check().unwrap().name(), config.pool_size), ("x", 3));
        assert_eq!((config.connect_timeout.as_millis(), config.response_timeout.as_millis()), (2_000, 1_500));
        assert_eq!((config.dead_letters_max, config.payload_bytes_max, config.migrate), (7, 8, false));
        assert_eq!((config.operation_window.as_secs(), config.sweep.as_secs(), config.poll.as_secs()), (9, 10, 2));
        assert_eq!(config.flush, Flush { accepting: false, claims: false, completions: false });
        assert_eq!(config.listens_at().as_ref().map(place).as_deref(), Some("direct:5433"));
        let plain = PostgresConfig::from_url("PostgreSQL://me@localhost").unwrap();
        assert_eq!((place(&plain.server()).as_str(), plain.sleep_max().as_secs()), ("localhost:5432", 30));
        assert!(plain.clone().listen(false).listens_at().is_none() && plain.pooler(true).sleep_max().as_secs() == 1);
    }

    #[test]
    fn clear_2_urls_say_what_is_wrong_with_them() {
        for (url, says) in [
            ("postgres:", "begins with `postgres://`"),
            ("memory:", "begins with"),
            ("postgres://host:port/", "a port's number"),
            ("postgres://host?sslmode=sometimes", "verify-full"),
            ("postgres://host?schemes=1", "no option `schemes`"),
            ("postgres://host?schema=a-b", "letters, digits and `_`"),
            ("postgres://host?pool_size=101", "1 to 100 connections"),
            ("postgres://host?pool_size=", "whole number"),
            ("postgres://host?sweep=soon", "such as `500ms`"),
            ("postgres://host?sweep=2days", "sweep is 1ms to a day"),
            ("postgres://host?listen=maybe", "`on` or `off`"),
            ("postgres://host?listen_url=postgres://h?schema%3Dx", "has no option `schema`"),
            ("postgres://host?schema=%4", "two digits"),
            ("postgres://host#x", "has no `#`"),
        ] {
            let e = PostgresConfig::from_url(url).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains(says), "{url}: {e}");
        }
    }

    #[test]
    fn clear_4_no_password_is_shown() {
        let url = "postgres://me:hunter2@host?listen_url=postgres://me:hunter2@other";
        let config = PostgresConfig::from_url(url).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for url in [
            "postgres://me:hu?hunter2@host",
            "postgres://me:hunter2@host:x",
            "postgres://me:hunter2@",
            "postgres://h?hunter2=1",
            "postgres://h?Password=hunter2",
            "postgres://h?port=hunter2",
            "postgres://h?listen_url=hunter2",
        ] {
            let e = PostgresConfig::from_url(url).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
        }
    }
}
