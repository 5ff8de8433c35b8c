//! A temporary directory with processes in it, and a guard that cleans up both, no matter how this process ends.
//!
//! The guard is a shell that waits for the end of its input. The input ends when our end of the pipe is closed: by a
//! drop, at the end of this process, or when it is killed. The guard then kills the registered processes and removes
//! the directory. So there is only one way of cleaning up, and every test uses it.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::error::{Result, ServerError, io};
use super::release::Release;

/// Lines are `watch PGID` and `forget PGID`. Killed are process groups: each server is the leader of one.
const GUARD: &str = r#"
dir=$1
groups=" "
while read -r verb group; do
  case $verb in
    watch) groups="$groups$group " ;;
    forget) groups=$(printf %s "$groups" | sed "s/ $group / /") ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
for try in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$dir" 2>/dev/null && break
  sleep 0.1
done
"#;

/// A directory that is removed together with everything that was started in it.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// As we see it.
    outside: PathBuf,
    /// As the processes see it.
    inside: PathBuf,
    /// `None` only while it is dropped.
    guard: Option<Child>,
}

impl Sandbox {
    /// Makes a directory in the release's root file system.
    pub(super) fn new(release: &Release) -> Result<Self> {
        let base = match &release.root {
            Some(_) => PathBuf::from("/tmp"),
            None => std::env::temp_dir(),
        };
        let there = release.outside(&base);
        let made = tempfile::Builder::new().prefix("delayline-").tempdir_in(&there);
        // The guard removes it, not the value.
        let outside = io(made, || format!("making a directory in {}", there.display()))?.keep();
        let name = outside.file_name().unwrap_or_default();
        let inside = base.join(name);
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&outside)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to our group, such as Ctrl-C, is not meant for it: it has to outlive us.
            .process_group(0)
            .spawn();
        let guard = io(guard, || "starting the guard, a shell".into())?;
        Ok(Self { outside, inside, guard: Some(guard) })
    }

    /// Its directory as the processes see it.
    pub(super) fn inside(&self) -> &Path {
        &self.inside
    }

    /// Its directory as we see it.
    pub(super) fn outside(&self) -> &Path {
        &self.outside
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        io(fs::write(self.outside.join(name), text), || format!("writing {name}"))
    }

    /// Starts a process in it, as the leader of a group; what it says goes to `NAME.log`.
    pub(super) fn spawn(&mut self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.outside.join(format!("{name}.log"));
        let file = io(File::options().create(true).append(true).open(&log), || format!("opening {}", log.display()))?;
        let errors = io(file.try_clone(), || "the log".into())?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = io(command.spawn(), || format!("starting {name}"))?;
        self.tell("watch", child.id())?;
        Ok(Process { name: name.into(), child, log })
    }

    /// Kills a process and all that it started, at once.
    pub(super) fn kill(&mut self, process: &mut Process) -> Result<()> {
        let tree = process.tree();
        process.signal(Signal::SIGKILL)?;
        let _ = process.child.wait();
        // PostgreSQL's children lead groups of their own and see a moment later that their parent is gone; a restart
        // must not meet them.
        for pid in tree {
            wait_for(Duration::from_secs(10), || !is_alive(pid));
        }
        self.tell("forget", process.child.id())
    }

    fn tell(&mut self, verb: &str, group: u32) -> Result<()> {
        let Some(pipe) = self.guard.as_mut().and_then(|guard| guard.stdin.as_mut()) else { return Ok(()) };
        io(writeln!(pipe, "{verb} {group}"), || "telling the guard".into())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// A server's process.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it and to all that it started.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        // The parent first, so that it starts nothing more; then all that is found, until nothing new is.
        let mut told: Vec<i32> = Vec::new();
        loop {
            let new: Vec<i32> = self.tree().into_iter().filter(|pid| !told.contains(pid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                told.push(pid);
                // One that has ended meanwhile needs no signal.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Stops it and all that it started, and waits until they stand still: a signal takes its time.
    pub(super) fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stands = |pid: i32| stat(pid).is_none_or(|(state, _)| matches!(state, 'T' | 't' | 'Z'));
        match wait_for(Duration::from_secs(10), || self.tree().into_iter().all(stands)) {
            true => Ok(()),
            false => Err(self.failed(&format!("{} still runs after SIGSTOP", self.name))),
        }
    }

    /// It and its descendants, parents first; itself alone where there is no `/proc`.
    fn tree(&self) -> Vec<i32> {
        let root = i32::try_from(self.child.id()).unwrap_or(i32::MAX);
        let mut children: Vec<(i32, i32)> = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            children.extend(stat(pid).map(|(_, parent)| (parent, pid)));
        }
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            tree.extend(children.iter().filter(|(p, _)| *p == parent).map(|(_, pid)| *pid));
            next += 1;
        }
        tree
    }

    /// Waits until `ready` answers something, while the process lives.
    pub(super) fn wait_until<T>(&mut self, at_most: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let mut answer = None;
        let mut ended = None;
        wait_for(at_most, || {
            answer = ready();
            ended = self.child.try_wait().ok().flatten();
            answer.is_some() || ended.is_some()
        });
        match (answer, ended) {
            (Some(answer), _) => Ok(answer),
            (None, Some(status)) => Err(self.failed(&format!("{} ended with {status}", self.name))),
            (None, None) => Err(self.failed(&format!("{} does not answer after {at_most:?}", self.name))),
        }
    }

    fn failed(&self, what: &str) -> ServerError {
        const LINES: usize = 20;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LINES)..].join("\n");
        ServerError::Failed { what: what.into(), log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard would kill it too; but only its parent can reap it.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A process's state and parent.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether it still does anything: one that has ended may wait for long to be reaped by its parent.
fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Looks again and again until something holds, and tells whether it did in time.
#[allow(clippy::disallowed_methods, reason = "waits for another process, on a thread of no runtime")]
pub(super) fn wait_for(at_most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let ends = Instant::now().into_std() + at_most;
    while !holds() {
        if std::time::Instant::now() > ends {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// A port that nobody listens on, and neither on the one so far above it.
pub(super) fn free_port(with: Option<u16>) -> Result<u16> {
    loop {
        let listener = io(TcpListener::bind("127.0.0.1:0"), || "looking for a free port".into())?;
        let port = io(listener.local_addr(), || "looking for a free port".into())?.port();
        match with {
            None => return Ok(port),
            Some(above) => {
                if port.checked_add(above).is_some_and(|other| TcpListener::bind(("127.0.0.1", other)).is_ok()) {
                    return Ok(port);
                }
            }
        }
    }
}

/// Runs a command to its end and answers what it said.
pub(super) fn run(mut command: Command, what: &str) -> Result<String> {
    let output = io(command.stdin(Stdio::null()).output(), || what.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let log = format!("{}{}", text(&output.stdout), text(&output.stderr));
    Err(ServerError::Failed { what: format!("{what} ended with {}", output.status), log })
}
