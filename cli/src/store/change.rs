//! `cancel`, `move`, `shift`: changing pending tasks.

use delayline::{Change, ChangeOutcome, Changed, OperationId, QueueName, Result as CoreResult, Select, TaskRef};
use serde::Serialize;
use uuid::Uuid;

use super::args::{CancelArgs, MoveArgs, QueueArgs, ShiftArgs};
use super::confirm::confirm;
use super::refs;
use super::session::Session;
use super::show::{out, out_json};
use crate::console::printable;
use crate::exit::{Exit, Failure};
use crate::words::many;

/// Number of times that a change whose answer was lost is repeated under its operation id.
const TRIES: u32 = 3;

/// What became of the tasks. Its JSON is a contract: `docs/cli.md` lists the fields.
#[derive(Debug, Default, Serialize)]
struct Answer {
    queue: String,
    changed: u64,
    in_flight: u64,
    not_found: u64,
    requested: u64,
    refused: u64,
    /// `None` for a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<One>>,
    #[serde(skip)]
    first_refusal: Option<delayline::Error>,
}

#[derive(Debug, Serialize)]
struct One {
    id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn cancel(session: &Session, args: CancelArgs) -> Result<Exit, Failure> {
    let capabilities = session.backend.capabilities();
    session.needs(capabilities.cancel, "cancel tasks")?;
    if let Some(group) = &args.group {
        session.needs_for("--group", capabilities.groups, "change groups")?;
        confirm(args.yes, &session.console, &format!("cancel all tasks of group `{group}` in `{}`", args.on.queue))?;
        return group_change(session, &args.on, Select::Group(group.clone()), Change::cancel(), "cancelled").await;
    }
    let tasks = which(args.ids, args.refs, args.from.as_deref())?;
    each(session, &args.on, tasks, Change::cancel(), "cancelled").await
}

pub(super) async fn move_to(session: &Session, args: MoveArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().reschedule, "move tasks")?;
    let due = args.due();
    let tasks = which(args.which.ids, args.which.refs, args.which.from.as_deref())?;
    each(session, &args.on, tasks, Change::move_to(due), "moved").await
}

pub(super) async fn shift(session: &Session, args: &ShiftArgs) -> Result<Exit, Failure> {
    let capabilities = session.backend.capabilities();
    session.needs(capabilities.reschedule, "move tasks")?;
    session.needs(capabilities.groups, "change groups")?;
    group_change(session, &args.on, Select::Group(args.group.clone()), Change::shift(args.by), "shifted").await
}

fn which(
    ids: Vec<delayline::TaskId>,
    refs: Vec<TaskRef>,
    from: Option<&std::path::Path>,
) -> Result<Vec<TaskRef>, Failure> {
    let mut tasks: Vec<TaskRef> = ids.into_iter().map(TaskRef::from).chain(refs).collect();
    if let Some(path) = from {
        tasks.extend(refs::read(path)?);
    }
    Ok(tasks)
}

/// Changes the named tasks, in calls of bounded size.
async fn each(
    session: &Session,
    on: &QueueArgs,
    mut tasks: Vec<TaskRef>,
    change: Change,
    done: &str,
) -> Result<Exit, Failure> {
    let capabilities = session.backend.capabilities();
    if capabilities.change_needs_receipt
        && let Some(bare) = tasks.iter().find(|task| task.receipt == delayline::Receipt::NONE)
    {
        let (name, id) = (capabilities.name, printable(&bare.id.to_text()));
        let why = format!(
            "the {name} backend can't find a task by its id alone, such as `{id}`; nothing was done; give the `ref` \
             that `push --json` wrote, with --ref REF or --from FILE"
        );
        return Err(Failure::new(why).exit(Exit::Unsupported));
    }
    let mut answer = Answer { queue: on.queue.to_string(), tasks: Some(Vec::new()), ..Answer::default() };
    while !tasks.is_empty() {
        let rest = tasks.split_off(tasks.len().min(capabilities.batch_max));
        let ids: Vec<String> = tasks.iter().map(|task| task.id.to_text().into_owned()).collect();
        let changed = match call(session, &on.queue, Select::Tasks(tasks), change.clone()).await {
            Ok(changed) => changed,
            Err(e) => {
                // Report what was done before, too.
                finish(session, on, &answer, done)?;
                return Err(session.failed(&on.queue, e));
            }
        };
        let list = answer.tasks.get_or_insert_default();
        list.extend(ids.into_iter().zip(&changed.outcomes).map(|(id, outcome)| one(id, outcome)));
        answer.add(changed);
        tasks = rest;
    }
    finish(session, on, &answer, done)
}

async fn group_change(
    session: &Session,
    on: &QueueArgs,
    select: Select,
    change: Change,
    done: &str,
) -> Result<Exit, Failure> {
    let mut answer = Answer { queue: on.queue.to_string(), ..Answer::default() };
    answer.add(call(session, &on.queue, select, change).await.map_err(|e| session.failed(&on.queue, e))?);
    finish(session, on, &answer, done)
}

/// One change, repeated under its operation id if the answer was lost.
async fn call(session: &Session, queue: &QueueName, select: Select, change: Change) -> CoreResult<Changed> {
    let remembered = !session.backend.capabilities().operation_window.is_zero();
    let operation = OperationId::from_uuid(Uuid::new_v4());
    let change = if remembered { change.operation(operation) } else { change };
    let mut tries = 1;
    loop {
        match session.backend.change(queue, select.clone(), change.clone()).await {
            Err(e) if e.retryable() && remembered && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            answer => return answer,
        }
    }
}

impl Answer {
    fn add(&mut self, changed: Changed) {
        self.changed += changed.changed;
        self.in_flight += changed.in_flight;
        self.not_found += changed.not_found;
        self.requested += changed.requested;
        self.refused += changed.refused;
        self.first_refusal = self.first_refusal.take().or(changed.first_refusal);
    }

    fn exit(&self) -> Exit {
        match self {
            Self { refused: 1.., .. } => Exit::Failed,
            Self { not_found: 1.., .. } => Exit::NotFound,
            Self { in_flight: 1.., .. } => Exit::InFlight,
            Self { .. } => Exit::Done,
        }
    }

    fn sentence(&self, done: &str) -> String {
        let mut parts = vec![format!("{} {done}", many(self.changed, "task", "tasks"))];
        for (count, what) in [
            (self.requested, "requested, with unknown outcome"),
            (self.in_flight, if done == "cancelled" { "in flight and marked" } else { "in flight and left unchanged" }),
            (self.not_found, "not there"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(", ")
    }
}

fn one(id: String, outcome: &CoreResult<ChangeOutcome>) -> One {
    let (outcome, error) = match outcome {
        Ok(outcome) => (outcome.as_str(), None),
        Err(e) => ("refused", Some(e.message().to_owned())),
    };
    One { id, outcome, error }
}

fn finish(session: &Session, on: &QueueArgs, answer: &Answer, done: &str) -> Result<Exit, Failure> {
    if on.output.json {
        out_json(answer)?;
    } else {
        out(&answer.sentence(done))?;
        let odd = |one: &&One| !matches!(one.outcome, "changed" | "requested");
        let listed = answer.tasks.iter().flatten().filter(odd);
        for One { id, outcome, error } in listed.take(session.console.list_max()) {
            let why = error.as_ref().map_or_else(|| outcome.replace('_', " "), Clone::clone);
            session.console.say(format_args!("{}: {}", printable(id), printable(&why)));
        }
    }
    if let (Some(refusal), None) = (&answer.first_refusal, &answer.tasks) {
        session.console.say(format_args!("refused: {}", printable(refusal.message())));
    }
    Ok(answer.exit())
}
