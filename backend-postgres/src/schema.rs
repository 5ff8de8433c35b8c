//! The names of the backend's objects in a database: the schema, and the notification channels.

use std::sync::Arc;

use delayline_core::{Error, ErrorKind, QueueName, Result};

/// Maximum length of a schema name. It leaves room for a queue name in a channel name, which PostgreSQL limits to 63
/// bytes.
pub(crate) const NAME_BYTES_MAX: usize = 40;

/// PostgreSQL truncates names to this length.
const CHANNEL_BYTES_MAX: usize = 63;

/// The schema of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    name: Arc<str>,
    quoted: Arc<str>,
}

impl Schema {
    /// Checks a name: letters, digits and `_`, not beginning with a digit or with `pg_`, which PostgreSQL reserves.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config).
    pub(crate) fn new(name: &str) -> Result<Self> {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) && !name.starts_with("pg_");
        if name.len() > NAME_BYTES_MAX || !letters || !begins {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "invalid schema name: use 1 to {NAME_BYTES_MAX} letters, digits and `_`, not beginning with a \
                     digit or `pg_`"
                ),
            ));
        }
        Ok(Self { name: name.into(), quoted: format!("\"{name}\"").into() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Replaces `{s}` in a statement by the schema, and `{name}` by its name as a string literal.
    pub(crate) fn expand(&self, sql: &str) -> Arc<str> {
        sql.replace("{s}", &self.quoted).replace("{name}", &format!("'{}'", self.name)).into()
    }

    /// The channel for a queue's notifications, for LISTEN and `pg_notify`. If the name would be too long, it contains
    /// a digest of the queue name. The notification names the queue again, so two queues with the same digest only wake
    /// each other's connection.
    pub(crate) fn channel(&self, queue: &QueueName) -> String {
        let plain = format!("{}.{queue}", self.name);
        if plain.len() <= CHANNEL_BYTES_MAX { plain } else { format!("{}.#{:016x}", self.name, digest(queue)) }
    }
}

/// FNV-1a. Every version and process must compute the same digest.
fn digest(queue: &QueueName) -> u64 {
    queue
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_stand_in_a_statement_are_taken() {
        for name in ["delayline", "_", "Exams2", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(&*Schema::new(name).unwrap().expand("{s}.task, {name}"), format!("\"{name}\".task, '{name}'"));
        }
        for name in ["", "2", "pg_x", "a\"b", "a b", "ä", "a'", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(Schema::new(name).unwrap_err().kind(), ErrorKind::Config, "{name}");
        }
    }

    #[test]
    fn channels_are_readable_where_they_fit_and_apart_where_they_do_not() {
        let schema = Schema::new(&"s".repeat(NAME_BYTES_MAX)).unwrap();
        let channel = |queue: &str| schema.channel(&QueueName::new(queue).unwrap());
        assert!(channel("exam").ends_with("s.exam"));
        let (a, b) = (channel(&"a".repeat(128)), channel(&"b".repeat(128)));
        assert!(a != b && a.len() <= CHANNEL_BYTES_MAX && b.contains(".#"), "{a} {b}");
        assert_eq!(digest(&QueueName::new("a").unwrap()), 0xaf63_dc4c_8601_ec8c, "FNV-1a's own test value");
    }
}
