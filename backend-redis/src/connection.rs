//! One multiplexed connection, rebuilt when it is broken or silent; scripts by their hash.

use delayline_core::Result;

/// A script, and its hash once it is known.
pub(crate) struct Script {
    /// For error messages: the file's name.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) text: &'static str,
    /// Whether repeating it after a lost answer has no further effect, so that `Connection` may do so by itself.
    pub(crate) repeatable: bool,
}

impl Connection {
    /// Runs a script: `EVALSHA`, and `SCRIPT LOAD` first where the server does not know it (also after a restart or
    /// `SCRIPT FLUSH`), unnoticed by the caller.
    ///
    /// # Errors
    /// `Unavailable` if it can't have been sent, `Ambiguous` if its answer was lost or did not come in time, `Full` for
    /// out of memory, `Denied`, `Closed`, `Corrupt` for an answer of another shape, `Incompatible`.
    pub(crate) async fn eval(&self, script: &'static Script, keys: &[&[u8]], args: Vec<Vec<u8>>) -> Result<redis::Value>;
}
