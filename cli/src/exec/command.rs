//! One command for one task.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use delayline::{Context, HandlerOutcome};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::groups::{Group, Groups};
use super::pump::{Tail, To, pump};
use crate::console::Console;
use crate::words::span;

/// Time between SIGTERM and SIGKILL for a command that has reached its time limit.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// Time limit for reading the last output of a command that has ended. A process that it left running may keep the pipe
/// open for ever.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(100);

/// Runs one command line for many tasks.
pub(crate) struct Runner {
    command: String,
    timeout: Option<Duration>,
    console: Arc<Console>,
    groups: Arc<Groups>,
}

impl Runner {
    pub(crate) fn new(command: String, timeout: Option<Duration>, console: Arc<Console>, groups: Arc<Groups>) -> Self {
        Self { command, timeout, console, groups }
    }

    /// Runs the command for a task. If the future is dropped, the command and all processes that it started are killed.
    pub(crate) async fn run(&self, payload: &[u8], context: &Context) -> HandlerOutcome {
        let running = match self.start(payload, context) {
            Ok(running) => running,
            Err(e) => return HandlerOutcome::retry(format!("cannot start `sh`: {}", crate::exit::io_text(&e))),
        };
        match running.end(self.timeout, context).await {
            Ok(()) => HandlerOutcome::Complete,
            Err(reason) => HandlerOutcome::retry(reason),
        }
    }

    fn start(&self, payload: &[u8], context: &Context) -> io::Result<Running> {
        let input = stdin_of(payload);
        // If there is a progress bar, the output of the command passes through us, so that it does not disturb the bar.
        let through_us = self.console.has_bar() && io::IsTerminal::is_terminal(&io::stdout());
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(&self.command)
            .env("DELAYLINE_ID", context.id().to_text().as_ref())
            .env("DELAYLINE_QUEUE", context.queue().as_str())
            .env("DELAYLINE_ATTEMPT", context.attempt().to_string())
            .env("DELAYLINE_DUE_AT", context.due_at().to_string())
            .env_remove("DELAYLINE_GROUP")
            .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(if through_us { Stdio::piped() } else { Stdio::inherit() })
            .stderr(Stdio::piped());
        if let Some(group) = context.group() {
            command.env("DELAYLINE_GROUP", group.as_str());
        }
        // The variables in which programs with OpenTelemetry pass a trace on.
        command.env_remove("TRACEPARENT").env_remove("TRACESTATE");
        if let Some(trace) = context.trace_context() {
            command.env("TRACEPARENT", trace.traceparent());
            trace.tracestate().map(|state| command.env("TRACESTATE", state));
        }
        let (mut child, group) = self.groups.start(&mut command)?;
        let tail = Tail::default();
        let to_stderr = child.stderr.take().map(|from| pump(from, To::Stderr, self.console.clone(), tail.clone()));
        let to_stdout = child.stdout.take().map(|from| pump(from, To::Stdout, self.console.clone(), Tail::default()));
        let pumps = to_stderr.map(tokio::spawn).into_iter().chain(to_stdout.map(tokio::spawn)).collect();
        let feeder = child.stdin.take().map(|stdin| tokio::spawn(feed(stdin, input)));
        Ok(Running { child, group, feeder, pumps, tail })
    }
}

/// A running command. The group is declared before the child, so that it is killed before the child is dropped.
struct Running {
    group: Option<Group>,
    child: Child,
    feeder: Option<JoinHandle<()>>,
    pumps: Vec<JoinHandle<()>>,
    tail: Tail,
}

impl Running {
    /// Waits for the command to end. The error is the reason of a failure.
    async fn end(mut self, limit: Option<Duration>, context: &Context) -> Result<(), String> {
        let ended = tokio::select! {
            ended = wait(&mut self.child, limit) => ended,
            // The task may be running elsewhere by now.
            () = context.lost().cancelled() => return Err("its lease was lost".to_owned()),
        };
        let failed = match ended {
            Some(Ok(status)) if status.success() => None,
            Some(Ok(status)) => Some(describe(status)),
            Some(Err(e)) => return Err(format!("waiting for the command failed: {}", crate::exit::io_text(&e))),
            None => {
                self.kill().await;
                limit.map(|limit| format!("timed out after {}", span(limit)))
            }
        };
        if let Some(group) = self.group.take() {
            group.ended();
        }
        if let Some(feeder) = self.feeder.take() {
            feeder.abort();
        }
        let said_all = async {
            for pump in std::mem::take(&mut self.pumps) {
                let _ = pump.await;
            }
        };
        let _ = timeout(LAST_WORDS_PATIENCE, said_all).await;
        match failed {
            None => Ok(()),
            Some(failed) => Err(match self.tail.last_line() {
                Some(line) => format!("{failed}: {line}"),
                None => failed,
            }),
        }
    }

    /// Ends the whole process group: SIGTERM first, then SIGKILL.
    async fn kill(&mut self) {
        let Some(group) = &self.group else { return };
        group.signal(Signal::SIGTERM);
        let asked = timeout(KILL_AFTER, self.child.wait()).await;
        // Processes that the leader started may still be there.
        group.signal(Signal::SIGKILL);
        if asked.is_err() {
            let _ = self.child.wait().await;
        }
    }
}

/// Waits for a child, for at most this time.
async fn wait(child: &mut Child, limit: Option<Duration>) -> Option<io::Result<ExitStatus>> {
    match limit {
        Some(limit) => timeout(limit, child.wait()).await.ok(),
        None => Some(child.wait().await),
    }
}

/// The standard input of a command: a string as bare text, nothing for null, anything else as JSON.
fn stdin_of(payload: &[u8]) -> Vec<u8> {
    match payload {
        b"null" => Vec::new(),
        [b'"', ..] => serde_json::from_slice::<String>(payload).map_or_else(|_| payload.to_vec(), String::into_bytes),
        _ => payload.to_vec(),
    }
}

/// Writes standard input. A command need not read it.
async fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    let _ = stdin.write_all(&input).await;
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_reads() {
        for (payload, stdin) in [
            ("null", ""),
            ("\"a \\\"b\\\"\\n\"", "a \"b\"\n"),
            ("\"\"", ""),
            ("{\"a\":[1.0]}", "{\"a\":[1.0]}"),
            ("17", "17"),
        ] {
            assert_eq!(stdin_of(payload.as_bytes()), stdin.as_bytes(), "{payload}");
        }
    }

    #[test]
    fn how_a_command_ended() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(describe(ExitStatus::from_raw(9)), "killed by SIGKILL");
    }
}
