//! Returns and dead-letters messages, and acknowledges those that were replaced.

use std::sync::Arc;

use delayline_core::{DeadLetterCause, Error, ErrorKind, Result};
use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::time::timeout;

use super::line::{Held, Line};
use crate::codec::kind::Kind;
use crate::codec::message::Message;
use crate::store::Store;
use crate::transport::asking::answered;
use crate::transport::driver;
use crate::transport::publisher::NotPublished;

/// Publishes messages to the ready queue again, in order of their due times, and acknowledges the originals. A message
/// that can't be published stays unacknowledged: the broker delivers it again when the channel ends.
pub(crate) async fn give_back(store: &Arc<Store>, line: &Line, mut held: Vec<Held>) {
    held.sort_unstable_by_key(|held| (held.message.due_ms, held.message.seq));
    let ready = store.names.ready(&line.queue);
    let outgoing = held.iter().map(|held| store.outbox.to_queue(ready.clone(), &held.message)).collect();
    let answers = store.outbox.publish(&line.queue, outgoing).await;
    let mut done = Vec::with_capacity(held.len());
    for (held, answer) in held.iter().zip(answers) {
        match answer {
            Ok(()) => done.push(held),
            Err(e) => {
                let e = e.into_error("returning a task");
                tracing::warn!(queue = %line.queue, error = %e, "the broker keeps the task and delivers it again");
            }
        }
    }
    acknowledge(store, line, &done).await;
}

/// Moves tasks to the dead letters, and returns how many arrived there.
pub(crate) async fn dead_letter(store: &Arc<Store>, line: &Line, doomed: Vec<(Held, DeadLetterCause)>) -> u64 {
    let dead = store.names.dead(&line.queue);
    let outgoing = doomed.iter().map(|(held, cause)| {
        let reason = held.message.failure.clone().unwrap_or_default();
        store.outbox.to_queue(dead.clone(), &as_dead(store, &held.message, held.attempts, *cause, reason))
    });
    let outgoing = outgoing.collect();
    let answers = store.outbox.publish(&line.queue, outgoing).await;
    let mut done = Vec::with_capacity(doomed.len());
    for ((held, _), answer) in doomed.iter().zip(answers) {
        match answer {
            Ok(()) => done.push(held),
            Err(e) => {
                let e = e.into_error("dead-lettering a task");
                tracing::warn!(queue = %line.queue, error = %e, "the broker keeps the task and delivers it again");
            }
        }
    }
    acknowledge(store, line, &done).await;
    line.ended(doomed.len());
    done.len() as u64
}

/// The dead letter of a task. Its sequence is its position in the list of dead letters.
pub(crate) fn as_dead(
    store: &Store,
    message: &Message,
    attempts: u32,
    cause: DeadLetterCause,
    reason: String,
) -> Message {
    Message {
        attempts,
        seq: store.counters.sequences(1),
        failure: Some(reason),
        kind: Kind::Dead { cause, dead_lettered_ms: store.time.now_ms() },
        ..message.clone()
    }
}

/// Acknowledges messages. If an acknowledgement is lost, the channel is lost, too, and the broker delivers the messages
/// again.
async fn acknowledge(store: &Store, line: &Line, held: &[&Held]) {
    let _turn = line.acknowledges.read().await;
    send(store, line, held).await;
}

/// Sends acknowledgements, and returns which were sent.
async fn send(store: &Store, line: &Line, held: &[&Held]) -> Vec<bool> {
    held.iter().for_each(|held| line.acknowledging(held.consumer()));
    let sending = driver::send_all(held.iter().map(|held| held.acknowledge()));
    match timeout(store.config.response_timeout, sending).await {
        Ok(sent) => sent.iter().map(Result::is_ok).collect(),
        // Each of them may have been sent.
        Err(_) => vec![true; held.len()],
    }
}

/// Acknowledges messages and waits until the broker has processed the acknowledgements: until it answers a later
/// request on the same channel.
pub(crate) async fn acknowledge_for_certain(
    store: &Store,
    line: &Line,
    channels: Vec<Channel>,
    held: &[&Held],
) -> Vec<Result<(), Option<Error>>> {
    let turn = line.acknowledges.read().await;
    let sent = send(store, line, held).await;
    drop(turn);
    let unclear = |e: Error| sent.iter().map(|sent| Err(sent.then(|| e.clone()))).collect();
    let doing = "acknowledging";
    if channels.is_empty() {
        return unclear(Error::new(ErrorKind::Ambiguous, format!("{doing}: the channel was lost")));
    }
    // Nothing is published on these channels; the request is sent for its answer.
    let asked = try_join_all(channels.iter().map(|channel| channel.confirm_select(ConfirmSelectOptions::default())));
    match answered(&store.config, doing, true, asked).await {
        Ok(_) => sent.iter().map(|sent| if *sent { Ok(()) } else { Err(None) }).collect(),
        Err(e) => unclear(e),
    }
}

/// The error of a disposition whose message could not be published.
pub(crate) fn unpublished(e: NotPublished) -> Error {
    e.into_error("settling")
}
