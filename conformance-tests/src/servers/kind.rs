//! The kinds of server that there are.

use std::fmt;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Redis, or Valkey.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ.
    RabbitMq,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Postgres, Self::RabbitMq];

    /// As `scripts/servers` and the environment variables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
