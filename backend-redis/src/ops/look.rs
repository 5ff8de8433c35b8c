//! Reads: one task, pages of tasks, counts, queue names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::millis;
use delayline_core::{
    DueWithin, Error, ErrorKind, Page, QueueName, QueueStats, Receipt, Result, TaskId, TaskRef, TaskState, TaskView,
    Timestamp, limits,
};
use redis::Value;

use crate::codec::{self, Life, Record, number_bytes, receipt, text};
use crate::keys;
use crate::limits::PIECE;
use crate::scripts;
use crate::store::Store;
use crate::transport::Reply;

pub(crate) async fn find(store: &Store, queue: &QueueName, id: &TaskId) -> Result<Option<TaskView>> {
    let number = keys::shard_of(id, store.config.shards);
    let shard = store.shard(queue, number);
    let mut args = store.args(&shard, 1);
    args.push(id_bytes(id));
    let mut reply = store.run(&scripts::FIND, &shard, None, args).await?;
    if reply.left() == 0 {
        return Ok(None);
    }
    view(&mut reply, number).map(Some)
}

/// Decodes one task of a shard from the reply of `find.lua` or `list.lua`.
fn view(reply: &mut Reply, shard: u32) -> Result<TaskView> {
    let now_ms = reply.now_ms();
    let (member, place, record) = (reply.bytes()?, reply.number()?, reply.bytes()?);
    let (life, body) = (reply.bytes_or_nil()?, reply.bytes_or_nil()?);
    let id = codec::read_id(member.get(7..).unwrap_or_default())?;
    let record = Record::read(record, body)?;
    let life = life.map(Life::read).transpose()?;
    let leased = life.as_ref().is_some_and(|life| life.leased);
    let live = leased && place > now_ms;
    let state = match &life {
        Some(life) if live && life.cancelled => TaskState::Cancelling,
        Some(_) if live => TaskState::InFlight,
        _ => TaskState::Pending,
    };
    // For a claimed task: its due time at that claim.
    let due = life.as_ref().filter(|_| leased).map_or(place, |life| life.old_place_ms);
    let task = TaskRef::new(id, millis(due), receipt(shard, record.seq));
    let mut view = TaskView::new(task, state, millis(place), record.payload);
    view.attempts_max = record.attempts_max;
    view.expires_at = record.expires_at;
    view.group = record.group;
    view.headers = record.headers;
    if let Some(life) = life {
        view.attempt = life.attempt;
        view.last_failure = life.failure;
    }
    Ok(view)
}

/// A position in a listing: visible at, in ms, and the receipt, which breaks ties. Each shard numbers its tasks
/// separately, so two tasks may have the same time and number; then the lower shard comes first.
type Place = (i64, u64, u64);

fn place_of(visible_at: Timestamp, receipt: &Receipt) -> Place {
    let [shard, seq] = receipt.words().unwrap_or([u64::MAX; 2]);
    (visible_at.unix_millis_floor(), seq, shard)
}

pub(crate) async fn list(store: &Store, queue: &QueueName, page: Page) -> Result<Vec<TaskView>> {
    store.lifecycle.open()?;
    let limit = page.limit.min(limits::PAGE_MAX);
    let place = |view: &TaskView| place_of(view.visible_at, &view.task.receipt);
    let after = page.after.map(|cursor| place_of(cursor.visible_at, &cursor.receipt));
    let mut merged: Vec<TaskView> = Vec::new();
    let mut bound: Option<Place> = None;
    if limit == 0 {
        return Ok(merged);
    }
    for (number, shard) in (0_u32..).zip(store.shards(queue)) {
        let mut args = store.args(&shard, 4);
        match after {
            Some((ms, seq, of)) => {
                // A task with the same number in a higher shard comes after the cursor, too.
                let seq = if u64::from(number) <= of { seq } else { seq.saturating_sub(1) };
                args.push(text(ms));
                args.push(number_bytes(seq).to_vec());
            }
            None => args.extend([Vec::new(), Vec::new()]),
        }
        args.extend([text(limit), text(PIECE.bytes)]);
        let mut reply = store.run(&scripts::LIST, &shard, None, args).await?;
        let before = merged.len();
        while reply.left() > 0 {
            merged.push(view(&mut reply, number)?);
        }
        // After the last task in the reply, a shard may have more.
        if let Some(last) = merged[before..].last().map(place) {
            bound = Some(bound.map_or(last, |bound| bound.min(last)));
        }
    }
    if store.config.shards > 1 {
        merged.sort_by_key(place);
        merged.retain(|view| bound.is_none_or(|bound| place(view) <= bound));
        merged.truncate(limit);
    }
    Ok(merged)
}

pub(crate) async fn stats(store: &Store, queue: &QueueName) -> Result<QueueStats> {
    store.lifecycle.open()?;
    let mut stats = QueueStats::default();
    let mut due_within = [0; 4];
    for shard in store.shards(queue) {
        let mut cursor = 0;
        // A scan of a hash may return an entry twice.
        let mut leased = HashMap::new();
        let mut over = HashSet::new();
        loop {
            let mut args = store.args(&shard, 1);
            args.push(text(cursor));
            let mut reply = store.run(&scripts::STATS, &shard, None, args).await?;
            let now_us = reply.now_us;
            cursor = reply.number()?;
            let (visible, later) = (reply.number()?, reply.number()?);
            let (dead, quarantined, dropped) = (reply.number()?, reply.number()?, reply.number()?);
            let (paused, oldest, upcoming) = (reply.int()? == 1, reply.int()?, reply.int()?);
            let within = [reply.number()?, reply.number()?, reply.number()?, reply.number()?];
            while reply.left() > 0 {
                match (reply.bytes()?, reply.number()?) {
                    (id, 0) => drop(over.insert(id)),
                    (id, ends_ms) => drop(leased.insert(id, ends_ms)),
                }
            }
            if cursor > 0 {
                continue;
            }
            let in_flight = leased.len() as u64;
            stats.in_flight += in_flight;
            stats.scheduled += later.saturating_sub(in_flight);
            stats.due += visible.saturating_sub(over.len() as u64);
            for ((sum, all), window) in due_within.iter_mut().zip(within).zip(DueWithin::WINDOWS) {
                let soon = now_us / 1000 + 1..=now_us / 1000 + u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                let leases = leased.values().filter(|ends_ms| soon.contains(ends_ms)).count() as u64;
                *sum += all.saturating_sub(leases);
            }
            stats.dead += dead;
            stats.quarantined += quarantined;
            stats.dead_dropped += dropped;
            stats.paused |= paused;
            if let Ok(oldest) = u64::try_from(oldest) {
                let waited = Duration::from_micros(now_us.saturating_sub(oldest * 1000));
                stats.oldest_due = stats.oldest_due.max(Some(waited));
            }
            if let Ok(upcoming) = u64::try_from(upcoming) {
                let wait = Duration::from_micros((upcoming * 1000).saturating_sub(now_us));
                stats.next_due_in = Some(stats.next_due_in.map_or(wait, |other| other.min(wait)));
            }
            break;
        }
    }
    stats.due_within = Some(DueWithin::new(due_within));
    Ok(stats)
}

/// Queues that have a key in the database, found by a scan of all keys, and queues with a subscription of this backend.
pub(crate) async fn queues(store: &Store) -> Result<Vec<QueueName>> {
    store.lifecycle.open()?;
    let prefix = &store.config.key_prefix;
    let mut queues: BTreeSet<QueueName> = store.lifecycle.entered().into_iter().collect();
    let mut cursor = String::from("0");
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(keys::queues_pattern(prefix)).arg("COUNT").arg(1000);
        let Value::Array(answer) = store.connection.read("SCAN", &scan).await? else { return Err(unreadable()) };
        let [Value::BulkString(next), Value::Array(found)] = answer.as_slice() else { return Err(unreadable()) };
        for key in found {
            if let Value::BulkString(key) = key {
                queues.extend(keys::queue_of(prefix, key));
            }
        }
        cursor = String::from_utf8_lossy(next).into_owned();
        if cursor == "0" {
            return Ok(queues.into_iter().collect());
        }
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "unexpected reply to SCAN")
}
