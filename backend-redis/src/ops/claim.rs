//! Claims from the shards of a queue, and recovers claims whose reply was lost.
//!
//! A claim has an id. When its reply is lost, the next claim sends the same id, and the script releases the tasks that
//! were claimed under it before it claims again.

use std::sync::Arc;
use std::time::Duration;

use delayline_backend_kit::times::{micros_ceil, millis};
use delayline_backend_kit::{Claims, Lifecycle, ListeningSubscription};
use delayline_core::{
    Capabilities, Claim, Claimed, ClaimedTask, Disposition, ErrorKind, Lease, QueueName, Result, Subscription,
    SubscriptionOptions,
};
use futures_util::future::join_all;

use crate::codec::{self, Record, number_bytes, receipt, text};
use crate::keys::Shard;
use crate::limits::PIECE;
use crate::scripts;
use crate::store::Store;
use crate::transport::Reply;

/// Maximum number of rounds over the shards in one claim.
const ROUNDS_MAX: usize = 4;

/// The shards of a queue, as one subscription uses them.
pub(crate) struct Shards {
    store: Arc<Store>,
    queue: QueueName,
    shards: Vec<Place>,
}

/// A shard, and the key in which this subscription records its last claim there.
struct Place {
    at: u32,
    shard: Shard,
    claim_key: Vec<u8>,
}

pub(crate) struct State {
    /// For each shard, the id of a claim whose reply was lost.
    lost: Vec<Option<[u8; 16]>>,
    /// For each shard, whether the record of a claim may exist.
    noted: Vec<bool>,
    /// The shard whose turn it is to be asked for more tasks than the others.
    turn: usize,
}

/// The limits of a claim from one shard.
struct Limits {
    max: usize,
    bytes: usize,
    /// Whether the first task may exceed `bytes`.
    any_size: bool,
    lease: Duration,
}

impl Limits {
    const NOTHING: Self = Self { max: 0, bytes: 0, any_size: false, lease: Duration::from_millis(1) };
}

/// The result of a claim from one shard.
struct Part {
    tasks: Vec<ClaimedTask>,
    now_ms: u64,
    now_us: u64,
    next_ms: Option<u64>,
    dead_lettered: u64,
    quarantined: u64,
    /// Claimed entries that can't be decoded: id and fence.
    unreadable: Vec<(Vec<u8>, u64)>,
}

/// Opens a subscription of a queue.
pub(crate) fn subscribe(
    store: Arc<Store>,
    queue: &QueueName,
    options: SubscriptionOptions,
) -> Result<Box<dyn Subscription>> {
    store.lifecycle.open()?;
    let number = store.ids.number();
    let places: Vec<Place> = (0..)
        .zip(store.shards(queue))
        .map(|(at, shard)| Place { at, claim_key: shard.claim_key(number), shard })
        .collect();
    let state = State { lost: vec![None; places.len()], noted: vec![false; places.len()], turn: 0 };
    let (notifier, channel) = (store.notifier.clone(), store.shard(queue, 0).channel);
    let shards = Shards { store, queue: queue.clone(), shards: places };
    Ok(Box::new(ListeningSubscription::new(shards, state, &notifier, channel, options)))
}

impl Shards {
    /// Claims from all shards, in rounds: an equal share from each, then more from the shards that have more.
    async fn claim_from_all(&self, state: &mut State, claim: Claim) -> Result<Claimed> {
        let mut claimed = Claimed::default();
        let mut left = claim.max.min(PIECE.items);
        let mut bytes_left = claim.max_bytes;
        let mut wanted: Vec<usize> = (0..self.shards.len()).collect();
        let mut next_in: Vec<Option<Duration>> = vec![None; self.shards.len()];
        for _ in 0..ROUNDS_MAX {
            state.turn = state.turn.wrapping_add(1);
            let shares = shares(left, &wanted, state.turn);
            let id = self.store.ids.number().to_be_bytes();
            let bytes = if wanted.len() == 1 { bytes_left } else { bytes_left / wanted.len() };
            // A task larger than the limit must be the only one of the claim, so it is allowed only when one shard is
            // asked.
            let any_size = claimed.deliveries.is_empty() && wanted.len() == 1;
            let asked = wanted.iter().zip(&shares).map(|(&at, &max)| {
                let id = *state.lost[at].get_or_insert(id);
                let limits = Limits { max, bytes, any_size, lease: claim.lease };
                self.claim_from(&self.shards[at], id, limits)
            });
            let answers = join_all(asked.collect::<Vec<_>>()).await;
            let mut again = Vec::new();
            let mut failed = None;
            for (&at, answer) in wanted.iter().zip(answers) {
                let part = match answer {
                    Ok(part) => part,
                    Err(e) => {
                        if e.kind() != ErrorKind::Ambiguous {
                            // This claim did not run. If an earlier one with this id did, its record still exists: keep
                            // the id.
                            if !state.noted[at] {
                                state.lost[at] = None;
                            }
                        } else {
                            state.noted[at] = true;
                        }
                        failed.get_or_insert(e);
                        continue;
                    }
                };
                state.lost[at] = None;
                state.noted[at] = !part.tasks.is_empty() || !part.unreadable.is_empty();
                let wait = |next: u64| Duration::from_micros((next * 1000).saturating_sub(part.now_us));
                next_in[at] = part.next_ms.map(wait);
                if part.next_ms.is_some_and(|next| next <= part.now_ms) {
                    again.push(at);
                }
                left -= part.tasks.len().min(left);
                let bytes: usize = part.tasks.iter().map(|task| task.payload.len()).sum();
                bytes_left = bytes_left.saturating_sub(bytes);
                claimed.dead_lettered += part.dead_lettered;
                claimed.quarantined += part.quarantined + part.unreadable.len() as u64;
                self.quarantine(&self.shards[at].shard, &part.unreadable).await;
                claimed.deliveries.extend(part.tasks);
            }
            if let Some(e) = failed {
                if claimed.deliveries.is_empty() {
                    return Err(e);
                }
                // Return the tasks that were claimed; if the failure persists, the next claim returns it.
                next_in.push(Some(Duration::ZERO));
                break;
            }
            let more_of_several = self.shards.len() > 1 && left > 0 && bytes_left > 0;
            if again.is_empty() || claim.max == 0 || !(claimed.deliveries.is_empty() || more_of_several) {
                break;
            }
            if claimed.deliveries.is_empty() {
                // The due task may be larger than a shard's share, or than the limit.
                again = vec![again[state.turn % again.len()]];
            }
            wanted = again;
        }
        if self.shards.len() > 1 {
            claimed.deliveries.sort_by_key(|task| task.due_at);
        }
        claimed.next_due_in = next_in.into_iter().flatten().min();
        Ok(claimed)
    }

    async fn claim_from(&self, place: &Place, id: [u8; 16], limits: Limits) -> Result<Part> {
        let Limits { max, bytes, any_size, lease } = limits;
        let mut args = self.store.args(&place.shard, 5);
        args.extend([id.to_vec(), text(max), text(bytes), text(micros_ceil(lease)), text(u8::from(any_size))]);
        let reply = self.store.run(&scripts::CLAIM, &place.shard, Some(&place.claim_key), args).await?;
        Part::read(reply, place.at)
    }

    /// Quarantines claimed entries that can't be decoded. If that fails, a later claim finds them and tries again.
    async fn quarantine(&self, shard: &Shard, unreadable: &[(Vec<u8>, u64)]) {
        if unreadable.is_empty() {
            return;
        }
        let mut args = self.store.args(shard, 3 * unreadable.len());
        for (id, fence) in unreadable {
            let mut head = vec![b'x'];
            head.extend(number_bytes(*fence));
            args.extend([head, id.clone(), Vec::new()]);
        }
        if let Err(e) = self.store.run(&scripts::SETTLE, shard, None, args).await {
            tracing::warn!(queue = %self.queue, error = %e, "could not quarantine undecodable entries");
        }
    }
}

impl Claims for Shards {
    type State = State;

    fn capabilities(&self) -> &Capabilities {
        &self.store.caps
    }

    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.store.lifecycle
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    async fn claim(&self, state: &mut State, claim: Claim) -> Result<Claimed> {
        self.claim_from_all(state, claim).await
    }

    async fn settle(&self, dispositions: Vec<(Lease, Disposition)>) -> Result<Vec<Result<()>>> {
        self.store.settle(&self.queue, &dispositions).await
    }

    fn is_clean(&self, state: &State) -> bool {
        state.lost.iter().all(Option::is_none) && state.noted.iter().all(|noted| !noted)
    }

    /// Releases the tasks of claims whose replies were lost, and deletes the record of the last claim, which would
    /// otherwise stay for a minute.
    async fn clean_up(&self, state: &mut State) -> Result<()> {
        let mut result = Ok(());
        for (at, place) in self.shards.iter().enumerate() {
            if state.lost[at].is_none() && !state.noted[at] {
                continue;
            }
            let id = state.lost[at].unwrap_or_else(|| self.store.ids.number().to_be_bytes());
            match self.claim_from(place, id, Limits::NOTHING).await {
                Ok(_) => (state.lost[at], state.noted[at]) = (None, false),
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }
}

/// The number of tasks to ask each of the wanted shards for: at most `left` in all; the shards whose turn it is get the
/// remainder.
fn shares(left: usize, wanted: &[usize], turn: usize) -> Vec<usize> {
    let n = wanted.len();
    (0..n).map(|i| left / n + usize::from((i + n - turn % n) % n < left % n)).collect()
}

impl Part {
    fn read(mut reply: Reply, shard: u32) -> Result<Self> {
        let (now_us, now_ms) = (reply.now_us, reply.now_ms());
        let (fence, ends) = (reply.number()?, reply.number()?);
        let next_ms = u64::try_from(reply.int()?).ok();
        let (dead_lettered, quarantined) = (reply.number()?, reply.number()?);
        let mut part =
            Self { tasks: Vec::new(), now_ms, now_us, next_ms, dead_lettered, quarantined, unreadable: Vec::new() };
        part.tasks.reserve_exact(reply.left() / 5);
        while reply.left() > 0 {
            let (member, place, attempt) = (reply.bytes()?, reply.number()?, reply.number()?);
            let (record, body) = (reply.bytes()?, reply.bytes_or_nil()?);
            let id = member.get(7..).unwrap_or_default();
            match (codec::read_id(id), Record::read(record, body)) {
                (Ok(id), Ok(record)) => {
                    let ends_at = millis(ends);
                    let lease = Lease::new(id, fence, attempt as u32, ends_at, receipt(shard, record.seq));
                    let late = Duration::from_micros(now_us.saturating_sub(place * 1000));
                    let mut task = ClaimedTask::new(lease, millis(place), late, record.payload);
                    task.attempts_max = record.attempts_max;
                    task.expires_at = record.expires_at;
                    task.headers = record.headers;
                    task.group = record.group;
                    part.tasks.push(task);
                }
                _ => part.unreadable.push((id.to_vec(), fence)),
            }
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_are_even_and_take_turns() {
        assert_eq!(shares(1000, &[0], 7), [1000]);
        assert_eq!(shares(10, &[0, 1, 2], 0), [4, 3, 3]);
        assert_eq!(shares(10, &[0, 1, 2], 1), [3, 4, 3]);
        assert_eq!(shares(1, &[0, 1, 2], 2), [0, 0, 1]);
        assert_eq!(shares(0, &[0, 1], 0), [0, 0]);
    }
}
