//! `pause`, `resume`, `dead`, `delete`: operating a queue.

use delayline::backend::{AdminOp, DeadLetterOp};
use delayline::{DeadLetter, DeadLetterSelect, DeadLetters, QueueName, TaskId, limits};
use serde::Serialize;

use super::args::{DeadListArgs, DeleteArgs, PurgeArgs, QueueArgs, RedriveArgs};
use super::confirm::confirm;
use super::look::now;
use super::session::Session;
use super::show::{LetterShown, json, letter_table, out, out_json, write};
use crate::exit::{Exit, Failure};
use crate::words::many;

#[derive(Serialize)]
struct Done<'a> {
    queue: &'a QueueName,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<u64>,
    /// Dead letters that were not redriven, because their id is in use again.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<u64>,
}

impl<'a> Done<'a> {
    fn on(queue: &'a QueueName) -> Self {
        Self { queue, paused: None, deleted: None, redriven: None, purged: None, kept: None }
    }
}

pub(super) async fn pause(session: &Session, args: &QueueArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().pause, "pause queues")?;
    administer(session, &args.queue, AdminOp::Pause).await?;
    let answer = Done { paused: Some(true), ..Done::on(&args.queue) };
    say(args.output.json, &answer, &format!("`{}` is paused: no task is delivered until `resume`", args.queue))
}

pub(super) async fn resume(session: &Session, args: &QueueArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().pause, "resume queues")?;
    administer(session, &args.queue, AdminOp::Resume).await?;
    let answer = Done { paused: Some(false), ..Done::on(&args.queue) };
    say(args.output.json, &answer, &format!("`{}` is resumed: its tasks are delivered again", args.queue))
}

pub(super) async fn delete(session: &Session, args: &DeleteArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().delete, "delete queues")?;
    let queue = &args.queue;
    let holds = match session.backend.stats(queue).await {
        Ok(stats) => {
            let tasks = many(stats.scheduled + stats.due + stats.in_flight, "task", "tasks");
            format!(" with its {tasks} and {}", many(stats.dead, "dead letter", "dead letters"))
        }
        Err(_) => " with all that is in it".to_owned(),
    };
    confirm(args.yes, &session.console, &format!("delete queue `{queue}`{holds}"))?;
    administer(session, queue, AdminOp::Delete).await?;
    let answer = Done { deleted: Some(true), ..Done::on(queue) };
    say(args.output.json, &answer, &format!("`{queue}` is deleted{holds}"))
}

async fn administer(session: &Session, queue: &QueueName, op: AdminOp) -> Result<(), Failure> {
    session.backend.administer(queue, op).await.map_err(|e| session.failed(queue, e))
}

pub(super) async fn dead_list(session: &Session, args: &DeadListArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().dead_letters, "list dead letters")?;
    let (queue, as_json, limit) = (&args.on.queue, args.on.output.json, args.limit as usize);
    if as_json {
        write(&format!("{{\"queue\":{},\"letters\":[", json(queue)?))?;
    }
    let (mut shown, mut after) = (0, None);
    loop {
        let op = DeadLetterOp::List { after, limit: (limit - shown).min(limits::PAGE_MAX) };
        let page = letters(session, queue, op).await?;
        if as_json {
            let shown_now: Vec<LetterShown<'_>> =
                page.letters.iter().map(|letter| LetterShown::new(queue, letter)).collect();
            for (number, letter) in shown_now.iter().enumerate() {
                let comma = if shown + number == 0 { "" } else { "," };
                write(&format!("{comma}{}", json(letter)?))?;
            }
        } else if !page.letters.is_empty() {
            out(&table(&page.letters))?;
        }
        shown += page.letters.len();
        after = page.next;
        if after.is_none() || shown >= limit {
            break;
        }
    }
    if as_json {
        out(&format!("],\"more\":{}}}", after.is_some()))?;
    } else if shown == 0 {
        session.console.say(format_args!("queue `{queue}` has no dead letters"));
    } else if after.is_some() {
        session.console.note(format_args!("the oldest {shown}; there are more (--limit N shows more)"));
    }
    Ok(Exit::Done)
}

fn table(letters: &[DeadLetter]) -> String {
    letter_table(letters, now())
}

pub(super) async fn redrive(session: &Session, args: RedriveArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().dead_letters, "redrive dead letters")?;
    let (queue, named) = (&args.on.queue, args.ids.len());
    let op = DeadLetterOp::Redrive { select: select(args.ids), rate: args.rate };
    let answer = letters(session, queue, op).await?;
    let done = Done { redriven: Some(answer.affected), kept: Some(answer.kept), ..Done::on(queue) };
    let mut text = format!("{} redriven", many(answer.affected, "dead letter", "dead letters"));
    if answer.kept > 0 {
        text.push_str(&format!("; {} kept, because their ids are in use again or the store is full", answer.kept));
    }
    say(args.on.output.json, &done, &text)?;
    Ok(found(named, answer.affected + answer.kept))
}

pub(super) async fn purge(session: &Session, args: PurgeArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().dead_letters, "purge dead letters")?;
    let (queue, named) = (&args.on.queue, args.ids.len());
    let which =
        if named == 0 { "all dead letters".to_owned() } else { many(named as u64, "dead letter", "dead letters") };
    confirm(args.yes, &session.console, &format!("delete {which} of queue `{queue}` for good"))?;
    let answer = letters(session, queue, DeadLetterOp::Purge { select: select(args.ids) }).await?;
    let done = Done { purged: Some(answer.affected), ..Done::on(queue) };
    say(args.on.output.json, &done, &format!("{} purged", many(answer.affected, "dead letter", "dead letters")))?;
    Ok(found(named, answer.affected))
}

/// Whether there were as many dead letters as named.
fn found(named: usize, met: u64) -> Exit {
    if met < named as u64 { Exit::NotFound } else { Exit::Done }
}

fn select(ids: Vec<TaskId>) -> DeadLetterSelect {
    if ids.is_empty() { DeadLetterSelect::All } else { DeadLetterSelect::Ids(ids) }
}

async fn letters(session: &Session, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters, Failure> {
    session.backend.dead_letters(queue, op).await.map_err(|e| session.failed(queue, e))
}

fn say(as_json: bool, answer: &Done<'_>, text: &str) -> Result<Exit, Failure> {
    if as_json {
        out_json(answer)?
    } else {
        out(text)?
    };
    Ok(Exit::Done)
}
