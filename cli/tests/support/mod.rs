//! Runs the built program, and waits for its output. Nothing here sleeps.

#![allow(dead_code, reason = "each test file uses its part")]

#[cfg(any(feature = "redis", feature = "postgres", feature = "rabbitmq"))]
pub(crate) mod store;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use delayline::{Clock, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Generous, because only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The lines of standard output, which all have to be JSON objects.
    pub(crate) fn delivered(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.delivered().iter().map(|line| text(line, "id").to_owned()).collect()
    }
}

pub(crate) fn parse(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(value.is_object(), "{line}");
    value
}

pub(crate) fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {line}"))
}

/// The program under test: the one that `DELAYLINE_PROGRAM` names, such as a release build, or the one of this build.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("DELAYLINE_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_delayline").into(), PathBuf::from)
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env_remove("DELAYLINE_BACKEND").env_remove("DELAYLINE_LOG").env("NO_COLOR", "1");
    command
}

/// Runs the program to its end.
pub(crate) fn delayline(args: &[&str], stdin: &[u8]) -> Ended {
    delayline_with(args, stdin, &[])
}

pub(crate) fn delayline_with(args: &[&str], stdin: &[u8], environment: &[(&str, &str)]) -> Ended {
    let mut command = command(args);
    command.envs(environment.iter().copied());
    let mut running = Running::spawn(command);
    // It may end without reading it all.
    let _ = running.stdin.take().expect("stdin is piped").write_all(stdin);
    running.end()
}

/// Starts the program.
pub(crate) fn start(args: &[&str]) -> Running {
    Running::spawn(command(args))
}

/// A run in progress. Dropping it kills the program.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Option<Receiver<Vec<u8>>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        Self {
            stdin: child.stdin.take(),
            stdout: Some(lines(child.stdout.take().expect("stdout is piped"))),
            stderr: lines(child.stderr.take().expect("stderr is piped")),
            child,
        }
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        next(self.stdout.as_ref().expect("stdout is open")).expect("stdout has another line")
    }

    /// Waits for a line on standard error that holds this.
    pub(crate) fn says(&self, what: &str) -> String {
        loop {
            let line = next(&self.stderr).unwrap_or_else(|| panic!("stderr ended without `{what}`"));
            if line.contains(what) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a process number")), signal).expect("it is running");
    }

    /// Waits for its end, and that of all who share its output. Its input stays open, if it is.
    pub(crate) fn end(mut self) -> Ended {
        let stdout = self.stdout.take().expect("stdout is open");
        let stdout: String = std::iter::from_fn(|| next(&stdout)).collect();
        let stderr: String = std::iter::from_fn(|| next(&self.stderr)).collect();
        let status = self.child.wait().expect("it can be waited for");
        Ended { code: code(status), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| panic!("it was killed: {status}"))
}

fn next(lines: &Receiver<Vec<u8>>) -> Option<String> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Some(String::from_utf8_lossy(&line).into_owned()),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("nothing came for {PATIENCE:?}"),
    }
}

/// Reads lines, with their ends, on a thread.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1_000_000);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            if from.read_until(b'\n', &mut line).unwrap_or(0) == 0 || sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Starts the program with an output that the test may read itself.
pub(crate) fn start_with_pipe(args: &[&str]) -> (Child, std::process::ChildStdout) {
    let mut child =
        command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let stdout = child.stdout.take().expect("stdout is piped");
    (child, stdout)
}

/// Waits for the end of such a program.
pub(crate) fn end_of(mut child: Child) -> (i32, String) {
    let stderr = lines(child.stderr.take().expect("stderr is piped"));
    let said: String = std::iter::from_fn(|| next(&stderr)).collect();
    (code(child.wait().expect("it can be waited for")), said)
}

/// A temporary folder for one test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Where a file of this name is, or would be.
    pub(crate) fn path(&self, name: &str) -> String {
        self.as_path().join(name).to_str().expect("a path of plain text").to_owned()
    }

    /// Makes a file.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("the file can be written");
        path
    }

    pub(crate) fn as_path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("the file can be read")
}

/// The clock that the tests measure by.
pub(crate) fn clock() -> impl Clock {
    SystemClock::new()
}
