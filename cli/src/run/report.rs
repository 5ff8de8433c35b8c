//! The messages at the end of a run, and its exit code.

use delayline::backend::DeadLetterOp;
use delayline::limits::PAGE_MAX;
use delayline::{DeadLetter, DeadLetterCause, Durability};
use nix::sys::signal::Signal;

use super::rest::{Left, Target};
use super::state::Run;
use crate::console::printable;
use crate::exit::{Exit, Failure};
use crate::signal::Cause;
use crate::words::{many, span};

/// Reports what is left of a run that was cut short, and where it is.
pub(crate) fn left(run: &Run, cause: &Cause, left: Left, target: Option<&Target>) {
    let why = match cause {
        Cause::Signal(Signal::SIGINT) => "interrupted",
        Cause::Signal(_) => "terminated",
        Cause::OutputClosed => "stdout was closed",
        Cause::Failed(_) => "stopped by an error",
    };
    let durable = run.backend.capabilities().durability > Durability::Process;
    let (lost, kept) = if durable { (left.unaccepted, left.accepted) } else { (left.all(), 0) };
    let mut text = format!("{why}; {}", how_many(left));
    if kept > 0 {
        text.push_str(&format!("; {} in the store", if lost > 0 { many(kept, "stays", "stay") } else { stay(kept) }));
    }
    match target {
        Some(target) if lost > 0 => {
            let path = target.path().display();
            text.push_str(&format!("; saved to {path}, `delayline run {path}` continues with it"));
        }
        None if lost > 0 => {
            text.push_str("; lost with this process (--save-rest FILE would save what is left)");
        }
        Some(_) | None => {}
    }
    run.console.say(text);
}

fn stay(tasks: u64) -> String {
    if tasks == 1 { "it stays".to_owned() } else { "they stay".to_owned() }
}

fn how_many(left: Left) -> String {
    let due = match left.next_due_in {
        Some(wait) if wait.is_zero() => " now".to_owned(),
        Some(wait) => format!(" in {}", span(wait)),
        None => String::new(),
    };
    match (left.all(), due.as_str()) {
        (0, _) => "nothing is left".to_owned(),
        (1, "") => "1 task is left".to_owned(),
        (1, due) => format!("1 task is left, due{due}"),
        (tasks, "") => format!("{tasks} tasks are left"),
        (tasks, due) => format!("{tasks} tasks are left, the next is due{due}"),
    }
}

/// Lists the tasks that will not run any more.
pub(crate) async fn dead_letters(run: &Run) -> Result<(), Failure> {
    let dead = run.tally.counts().dead;
    if dead == 0 {
        return Ok(());
    }
    let (mut after, mut shown) = (None, 0);
    let max = run.console.list_max();
    while shown < max {
        let limit = (max - shown).min(PAGE_MAX);
        let page = run.backend.dead_letters(&run.queue, DeadLetterOp::List { after, limit }).await?;
        page.letters.iter().for_each(|letter| run.console.say(dead_letter(letter)));
        shown += page.letters.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let hidden = dead.saturating_sub(shown as u64);
    if hidden > 0 {
        run.console.say(format_args!("and {}", many(hidden, "more dead letter", "more dead letters")));
    }
    Ok(())
}

fn dead_letter(letter: &DeadLetter) -> String {
    let attempts = u64::from(letter.attempts);
    let reason = match (letter.cause, letter.reason.as_str()) {
        (DeadLetterCause::Expired, "") => "expired".to_owned(),
        (DeadLetterCause::Expired, reason) => format!("expired; before that: {reason}"),
        (_, "") => "its attempts are used up".to_owned(),
        (_, reason) => reason.to_owned(),
    };
    let id = printable(&letter.id.to_text());
    format!("dead letter: {id} after {}: {}", many(attempts, "attempt", "attempts"), printable(&reason))
}

/// The summary, in one line.
pub(crate) fn summary(run: &Run, done: &str) {
    let counts = run.tally.counts();
    let bad = run.console.bad_lines();
    let mut text = match counts.accepted {
        0 => "nothing was run".to_owned(),
        _ => format!("{} {done} in {}", counts.completed, span(run.tally.elapsed())),
    };
    for (number, one, more) in [
        (counts.retried, "retry", "retries"),
        (counts.dead, "dead letter", "dead letters"),
        (bad, "bad line", "bad lines"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {}", many(number, one, more)));
        }
    }
    if let Some([median, high, max]) = run.tally.lateness() {
        text.push_str(&format!("; lateness p50 {}, p99 {}, max {}", span(median), span(high), span(max)));
    }
    run.console.note(text);
}

/// The exit code of a run that was not cut short.
pub(crate) fn exit(run: &Run) -> Exit {
    if run.tally.counts().dead > 0 {
        Exit::DeadLetters
    } else if run.console.bad_lines() > 0 {
        Exit::BadLines
    } else {
        Exit::Done
    }
}
