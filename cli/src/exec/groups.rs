//! The process groups of running commands. A command is killed with all processes that it started.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// The running groups. `None` once all were killed; then no other starts.
#[derive(Debug)]
pub(crate) struct Groups(Mutex<Option<HashSet<Pid>>>);

impl Groups {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(HashSet::new())))
    }

    /// Kills all groups, when the program has to end at once.
    pub(crate) fn kill_all(&self) {
        for group in self.lock().take().into_iter().flatten() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// Starts a command that leads a group. The group is registered under the lock, so that
    /// [`kill_all`](Self::kill_all) can't miss it.
    pub(super) fn start(self: &Arc<Self>, command: &mut Command) -> io::Result<(Child, Option<Group>)> {
        let mut running = self.lock();
        let Some(running) = running.as_mut() else { return Err(io::Error::other("the run is ending")) };
        let child = command.process_group(0).spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        running.extend(leader);
        Ok((child, leader.map(|leader| Group { leader, groups: self.clone(), ended: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashSet<Pid>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One group. If it is dropped before its leader has ended, it is killed. A leader that was not waited for keeps its
/// process id, so that no other process can be hit.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    groups: Arc<Groups>,
    ended: bool,
}

impl Group {
    pub(super) fn signal(&self, signal: Signal) {
        let _ = killpg(self.leader, signal);
    }

    /// The leader has ended. Processes that it left running go on.
    pub(super) fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(running) = self.groups.lock().as_mut() {
            running.remove(&self.leader);
        }
        if !self.ended {
            self.signal(Signal::SIGKILL);
        }
    }
}
