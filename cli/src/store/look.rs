//! `stats`, `queues`, `find`, `list`, `ping`: inspecting a store, without changes.

use std::time::Duration;

use delayline::{Clock, Page, SystemClock, TaskView, Timestamp, limits};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::args::{FindArgs, ListArgs, PingArgs, QueuesArgs, StatsArgs};
use super::session::{Session, connect, hinted};
use super::show::{StatsShown, TaskShown, json, millis, out, out_json, stats_table, task_table, write};
use crate::console::printable;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::words::span;

pub(super) async fn stats(session: &Session, args: StatsArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().stats, "count tasks")?;
    let named = !args.queues.is_empty();
    let queues = if named { args.queues } else { session.backend.queues().await.map_err(hinted)? };
    let mut all = Vec::with_capacity(queues.len());
    for queue in queues {
        let stats = session.backend.stats(&queue).await.map_err(|e| session.failed(&queue, e))?;
        all.push((queue, stats));
    }
    if args.output.json {
        #[derive(Serialize)]
        struct Queues<'a> {
            queues: Vec<StatsShown<'a>>,
        }
        out_json(&Queues { queues: all.iter().map(|(queue, stats)| StatsShown::new(queue, stats)).collect() })?;
    } else if all.is_empty() {
        session.console.say("there are no queues");
    } else {
        out(&stats_table(&all))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn queues(session: &Session, args: &QueuesArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().stats, "list queues")?;
    let queues = session.backend.queues().await.map_err(hinted)?;
    if args.output.json {
        #[derive(Serialize)]
        struct Queues {
            queues: Vec<delayline::QueueName>,
        }
        out_json(&Queues { queues })?;
    } else if queues.is_empty() {
        session.console.say("there are no queues");
    } else {
        queues.iter().try_for_each(|queue| out(queue.as_str()))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn find(session: &Session, args: &FindArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().inspect, "show tasks")?;
    let queue = &args.on.queue;
    let found = session.backend.find(queue, &args.id).await.map_err(|e| session.failed(queue, e))?;
    let shown = found.as_ref().map(|view| TaskShown::new(queue, view));
    if args.on.output.json {
        #[derive(Serialize)]
        struct Found<'a> {
            task: Option<TaskShown<'a>>,
        }
        let exit = if shown.is_some() { Exit::Done } else { Exit::NotFound };
        out_json(&Found { task: shown })?;
        return Ok(exit);
    }
    match shown {
        Some(task) => {
            out(&task.lines(now())?)?;
            Ok(Exit::Done)
        }
        None => {
            let id = printable(&args.id.to_text());
            session.console.say(format_args!(
                "there is no task `{id}` in `{queue}`: it was completed, cancelled or dead-lettered, or it never existed"
            ));
            Ok(Exit::NotFound)
        }
    }
}

pub(super) async fn list(session: &Session, args: &ListArgs) -> Result<Exit, Failure> {
    session.needs(session.backend.capabilities().inspect, "list tasks")?;
    let queue = &args.on.queue;
    let as_json = args.on.output.json;
    if as_json {
        write(&format!("{{\"queue\":{},\"tasks\":[", json(queue)?))?;
    }
    let (mut shown, mut last) = (0, None::<TaskView>);
    let limit = args.limit as usize;
    while shown < limit {
        let at_once = (limit - shown).min(limits::PAGE_MAX);
        let page = match &last {
            None => Page::first(at_once),
            Some(last) => Page::after(last, at_once),
        };
        let tasks = session.backend.list(queue, page).await.map_err(|e| session.failed(queue, e))?;
        if tasks.is_empty() {
            break;
        }
        if as_json {
            for (number, view) in tasks.iter().enumerate() {
                let comma = if shown + number == 0 { "" } else { "," };
                write(&format!("{comma}{}", json(&TaskShown::new(queue, view))?))?;
            }
        } else {
            out(&task_table(&tasks, now()))?;
        }
        shown += tasks.len();
        last = tasks.into_iter().last();
    }
    if as_json {
        out("]}")?;
    } else if shown == 0 {
        session.console.say(format_args!("queue `{queue}` holds no tasks"));
    } else if shown == limit {
        session.console.note(format_args!("the first {limit}; there may be more (--limit N shows more)"));
    }
    Ok(Exit::Done)
}

/// Pings any store, also one in this process. Only the message tells a server that does not answer from one that can't
/// be reached.
pub(super) async fn ping(global: &Global, args: &PingArgs) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Pong {
        backend: &'static str,
        /// Time to connect, including the first calls on a connection.
        connect_ms: f64,
        ping_ms: f64,
    }
    let began = Instant::now();
    let ping = async {
        let backend = connect(global).await?;
        let connected = began.elapsed();
        let asked = Instant::now();
        backend.ping().await.map_err(hinted)?;
        Ok::<_, Failure>((backend, connected, asked.elapsed()))
    };
    let Ok(answer) = timeout(args.timeout, ping).await else {
        return Err(Failure::new(format!("no answer within {}", span(args.timeout))));
    };
    let (backend, connected, pinged) = answer?;
    let name = backend.capabilities().name;
    if args.output.json {
        out_json(&Pong { backend: name, connect_ms: millis(connected), ping_ms: millis(pinged) })?;
    } else {
        out(&format!("{name} answered in {} (connected in {})", span(pinged), span(connected)))?;
    }
    let _ = timeout(Duration::from_secs(1), backend.close()).await;
    Ok(Exit::Done)
}

pub(super) fn now() -> Timestamp {
    SystemClock::new().wall()
}
