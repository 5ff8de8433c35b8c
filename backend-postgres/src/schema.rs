//! The names of what is ours in a database: the schema, and the channels of wake-ups.

use std::sync::Arc;

use delayline_core::{Error, ErrorKind, QueueName, Result};

/// The longest name, so that a channel's name has room for a queue's within the 63 bytes of PostgreSQL.
pub(crate) const NAME_BYTES_MAX: usize = 40;

/// What PostgreSQL cuts names to.
const CHANNEL_BYTES_MAX: usize = 63;

/// The schema that our tables are in.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    name: Arc<str>,
    quoted: Arc<str>,
}

impl Schema {
    /// Checks a name: letters, digits and `_`, not beginning with a digit or `pg_`, which PostgreSQL keeps for itself.
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
                    "a schema's name is 1 to {NAME_BYTES_MAX} letters, digits and `_`, and begins with neither a digit nor `pg_`"
                ),
            ));
        }
        Ok(Self { name: name.into(), quoted: format!("\"{name}\"").into() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A statement with the schema in the place of each `{s}`, and its name as a text in the place of each `{name}`.
    pub(crate) fn expand(&self, sql: &str) -> Arc<str> {
        sql.replace("{s}", &self.quoted).replace("{name}", &format!("'{}'", self.name)).into()
    }

    /// The channel on which a queue's wake-ups are sent: what LISTEN and `pg_notify` name. One whose name is too long is
    /// told by its digest; a message names the queue again, so two queues on one channel only wake each other's connection.
    pub(crate) fn channel(&self, queue: &QueueName) -> String {
        let plain = format!("{}.{queue}", self.name);
        if plain.len() <= CHANNEL_BYTES_MAX { plain } else { format!("{}.#{:016x}", self.name, digest(queue)) }
    }
}

/// FNV-1a: every version and process must come to the same.
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
