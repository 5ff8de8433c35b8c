//! A script that is called by its hash.

use std::sync::OnceLock;

use redis::Cmd;

/// A script, and its hash once computed.
pub(crate) struct Script {
    /// File name, for error messages.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) text: &'static str,
    /// Whether a repeated call has no further effect, so that `Connection` may retry after a lost answer.
    pub(crate) repeatable: bool,
    hash: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(name: &'static str, text: &'static str, repeatable: bool) -> Self {
        Self { name, text, repeatable, hash: OnceLock::new() }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }

    pub(super) fn command(&self, by_hash: bool, keys: &[&[u8]], args: &[Vec<u8>]) -> Cmd {
        let mut command = if by_hash { redis::cmd("EVALSHA") } else { redis::cmd("EVAL") };
        command.arg(if by_hash { self.hash() } else { self.text }).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for arg in args {
            command.arg(arg.as_slice());
        }
        command
    }
}
