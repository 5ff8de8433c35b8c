//! What a session or a transaction of ours is told first.

use std::time::Duration;

/// What a session of ours does differently from the server's defaults.
///
/// The isolation is what our statements are written for, whatever the database's default. A statement that we no longer wait
/// for is stopped by the server, and so is a transaction that lost us. Keepalives let it find out, and keep what lies
/// between us from forgetting an idle connection.
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

/// Where the database's default is not to wait, we do, unless a call says that it need not.
fn wait_for_disk(local: bool) -> String {
    format!(
        "SELECT set_config('synchronous_commit', 'on', {local}) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// Without effect on a Unix socket.
pub(crate) const KEEPALIVES: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// Begins a transaction where the session's settings are not ours.
pub(super) fn begin(response_timeout: Duration) -> String {
    let ms = response_timeout.as_millis();
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {ms}; \
         SET LOCAL idle_in_transaction_session_timeout = {ms}; {}; {}",
        planner("LOCAL"),
        wait_for_disk(true)
    )
}

/// Our plans stay what they are. Every statement finds its rows by an index or by their place on disk. A scan of the whole
/// table is cheaper only while that is tiny; but the plan is kept, and the table grows.
pub(crate) fn planner(local: &str) -> String {
    ["jit", "enable_seqscan", "enable_bitmapscan"].map(|setting| format!("SET {local} {setting} = off")).join("; ")
}
