//! The first statements of a session or a transaction.

use std::time::Duration;

/// Settings of the backend's sessions that differ from the server's defaults.
///
/// The statements require this isolation level, whatever the database's default. The server stops a statement that the
/// backend no longer waits for, and a transaction whose client is gone. Keepalives let the server detect that, and keep
/// proxies from dropping idle connections.
pub(super) fn session_settings(response_timeout: Duration) -> String {
    let (statement_ms, transaction_ms) = (response_timeout.as_millis(), 2 * response_timeout.as_millis());
    format!(
        "SET default_transaction_isolation = 'read committed'; \
         SET statement_timeout = {statement_ms}; SET idle_in_transaction_session_timeout = {transaction_ms}; \
         {}; {}; {KEEPALIVES}",
        planner(""),
        wait_for_disk(false)
    )
}

/// If the database's default is not to wait for the disk, turns the wait on. A call may turn it off again.
fn wait_for_disk(local: bool) -> String {
    format!(
        "SELECT set_config('synchronous_commit', 'on', {local}) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// Settings of TCP keepalive. They have no effect on a Unix socket.
pub(crate) const KEEPALIVES: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// Begins a transaction in a session whose settings the backend does not control.
pub(super) fn begin(response_timeout: Duration) -> String {
    let ms = response_timeout.as_millis();
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {ms}; \
         SET LOCAL idle_in_transaction_session_timeout = {ms}; {}; {}",
        planner("LOCAL"),
        wait_for_disk(true)
    )
}

/// Settings that keep the query plans stable. Every statement finds its rows by an index or by their place on disk. A
/// scan of the whole table is cheaper only while the table is tiny, but the server keeps the plan while the table
/// grows.
pub(crate) fn planner(local: &str) -> String {
    ["jit", "enable_seqscan", "enable_bitmapscan"].map(|setting| format!("SET {local} {setting} = off")).join("; ")
}
