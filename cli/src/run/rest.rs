//! What is left when a run is cut short: its amount, and a file with it that `run` can read.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use delayline::{Clock, Due, GroupName, NewTask, SystemClock, TaskId, TaskView, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

use super::accept::Rest;
use super::ids::Ids;
use super::next_due::next_due_in;
use super::state::Run;
use crate::exit::Failure;
use crate::input::Batch;

/// A reader that has sent no batch for this long is waiting for input that does not come.
const INPUT_PATIENCE: Duration = Duration::from_secs(1);

/// Saving this many tasks takes long enough for a message.
const TAKES_A_WHILE: u64 = 200_000;

/// What is left of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// In the backend.
    pub(crate) accepted: u64,
    /// Read, and not yet in the backend.
    pub(crate) unaccepted: u64,
    /// Time until the first task in the backend is due.
    pub(crate) next_due_in: Option<Duration>,
}

impl Left {
    pub(crate) fn all(self) -> u64 {
        self.accepted + self.unaccepted
    }
}

/// A line of the file, in the form of the input.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a TaskId>,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

/// The file for what is left.
#[derive(Clone, Debug)]
pub(crate) struct Target(PathBuf);

impl Target {
    /// Checks beforehand that the file can be written.
    pub(crate) fn new(path: PathBuf) -> Result<Self, Failure> {
        let target = Self(path);
        if target.0.is_dir() {
            return Err(target.cannot(&io::Error::other("it is a directory")));
        }
        target.temporary()?;
        Ok(target)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A temporary file beside the target, which is deleted if it does not replace the target.
    fn temporary(&self) -> Result<NamedTempFile, Failure> {
        let folder = match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        tempfile::Builder::new()
            .prefix(".delayline-rest-")
            // As for any new file; the umask applies.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|e| self.cannot(&e))
    }

    fn cannot(&self, e: &io::Error) -> Failure {
        Failure::io(format_args!("cannot save the remaining tasks to {}", self.0.display()), e)
    }
}

/// Gathers what is left, and saves it if there is a target. Tasks in a store that outlives this process are counted,
/// and not saved.
pub(crate) async fn gather(run: &Run, rest: Option<Rest>, target: Option<&Target>) -> Result<Left, Failure> {
    let mut left = Left { accepted: run.tally.counts().outstanding(), ..Left::default() };
    if left.accepted > 0 {
        left.next_due_in = next_due_in(run).await?;
    }
    let mut file = match target {
        Some(target) => Some(Saving::begin(target)?),
        None => None,
    };
    if let (Some(file), Some(ids)) = (&mut file, &run.to_be_saved) {
        if left.accepted >= TAKES_A_WHILE {
            run.console.say(format_args!("saving {} tasks; Ctrl-C again discards them", left.accepted));
        }
        file.pending(run, ids).await?;
    }
    if let Some(mut rest) = rest {
        let mut batch: Vec<NewTask> = rest.tasks.into();
        loop {
            left.unaccepted += batch.len() as u64;
            if let Some(file) = &mut file {
                file.unaccepted(&batch)?;
            }
            match next_batch(&mut rest.input.batches, rest.input.is_stream).await {
                Some(next) => batch = next.tasks,
                None => break,
            }
        }
    }
    if let Some(file) = file {
        file.done(left)?;
    }
    Ok(left)
}

/// The next batch that the reader has read already.
async fn next_batch(
    batches: &mut tokio::sync::mpsc::Receiver<Result<Batch, Failure>>,
    is_stream: bool,
) -> Option<Batch> {
    let next = if is_stream {
        tokio::time::timeout(INPUT_PATIENCE, batches.recv()).await.ok().flatten()
    } else {
        batches.recv().await
    };
    next.and_then(Result::ok)
}

/// The file while it is being written. It replaces the target in one step, or not at all.
struct Saving<'a> {
    target: &'a Target,
    file: BufWriter<NamedTempFile>,
    clock: SystemClock,
}

impl<'a> Saving<'a> {
    fn begin(target: &'a Target) -> Result<Self, Failure> {
        Ok(Self { target, file: BufWriter::new(target.temporary()?), clock: SystemClock::new() })
    }

    /// Writes the tasks that are pending in the backend, in the order in which they were read.
    async fn pending(&mut self, run: &Run, ids: &Ids) -> Result<(), Failure> {
        for id in ids.all() {
            if let Some(task) = run.backend.find(&run.queue, &id).await? {
                self.view(&task)?;
            }
        }
        Ok(())
    }

    fn view(&mut self, task: &TaskView) -> Result<(), Failure> {
        let due = task.task.due_at.unwrap_or(task.visible_at);
        self.write(&Line {
            id: Some(&task.task.id),
            at: due_before(due, task.expires_at),
            payload: payload_of(&task.payload),
            group: task.group.as_ref(),
            expires: task.expires_at,
        })
    }

    /// Writes the tasks that were read and never accepted. Their delays count from now.
    fn unaccepted(&mut self, tasks: &[NewTask]) -> Result<(), Failure> {
        let now = self.clock.wall();
        let instant = |due: Due| due.instant(now);
        for task in tasks {
            let expires = task.expires.map(instant);
            self.write(&Line {
                id: task.id.as_ref(),
                at: due_before(instant(task.due), expires),
                payload: payload_of(&task.payload),
                group: task.group.as_ref(),
                expires,
            })?;
        }
        Ok(())
    }

    fn write(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.file, line)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|e| self.target.cannot(&e))
    }

    /// Replaces the target, unless there is nothing to save.
    fn done(self, left: Left) -> Result<(), Failure> {
        let target = self.target;
        let file = self.file.into_inner().map_err(|e| target.cannot(e.error()))?;
        if left.all() == 0 {
            return Ok(());
        }
        file.as_file().sync_all().map_err(|e| target.cannot(&e))?;
        let _: File = file.persist(&target.0).map_err(|e| target.cannot(&e.error))?;
        Ok(())
    }
}

/// A payload of `null` is left out.
fn payload_of(payload: &[u8]) -> Option<&RawValue> {
    if payload == b"null" { None } else { serde_json::from_slice(payload).ok() }
}

/// A retry may be due after its task expires; in the input, that would be an error.
fn due_before(due: Timestamp, expires: Option<Timestamp>) -> Timestamp {
    expires.map_or(due, |expires| due.min(expires))
}
