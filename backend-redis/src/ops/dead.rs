//! Lists, redrives and purges dead letters.

use std::collections::{HashSet, VecDeque};

use delayline_backend_kit::Pace;
use delayline_backend_kit::codec::id_bytes;
use delayline_core::{DeadLetterOp, DeadLetterSelect, DeadLetters, Error, QueueName, Result, limits};

use crate::codec::{read_letter, text};
use crate::keys::Shard;
use crate::limits::{PIECE, SHARDS_MAX};
use crate::scripts;
use crate::store::Store;

/// Maximum number of dead letters in one script call.
const LETTERS: usize = 250;

/// A position in a listing is the number of the letter within its shard times this, plus the shard. So each letter has
/// its own.
const SHARDS: u64 = SHARDS_MAX as u64;

pub(crate) async fn operate(store: &Store, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
    store.lifecycle.open()?;
    match op {
        DeadLetterOp::List { after, limit } => list(store, queue, after, limit.min(limits::PAGE_MAX)).await,
        DeadLetterOp::Redrive { select, rate } => {
            let mut redrive = Redrive { pace: Pace::new(rate)?, since: 0, answer: DeadLetters::default() };
            walk(store, queue, select, &mut Work::Redrive(&mut redrive)).await?;
            Ok(redrive.answer)
        }
        DeadLetterOp::Purge { select } => {
            let mut answer = DeadLetters::default();
            walk(store, queue, select, &mut Work::Purge(&mut answer)).await?;
            Ok(answer)
        }
        _ => Err(Error::unsupported("this operation on dead letters")),
    }
}

async fn list(store: &Store, queue: &QueueName, after: Option<u64>, limit: usize) -> Result<DeadLetters> {
    let mut answer = DeadLetters::default();
    if limit == 0 {
        return Ok(answer);
    }
    let mut merged = Vec::new();
    let mut bound = u64::MAX;
    for (number, shard) in (0..).zip(store.shards(queue)) {
        let from = after.map_or(0, |after| {
            let (place, of) = (after / SHARDS, after % SHARDS);
            if number <= of { place } else { place.saturating_sub(1) }
        });
        let mut args = store.args(&shard, 3);
        args.extend([text(from), text(limit), text(PIECE.bytes)]);
        let mut reply = store.run(&scripts::DEAD_LIST, &shard, None, args).await?;
        let more = reply.int()? == 1;
        while reply.left() > 0 {
            let (letter, body) = (reply.bytes()?, reply.bytes_or_nil()?);
            let (place, letter) = read_letter(letter, body)?;
            merged.push((place * SHARDS + number, letter));
        }
        if more && let Some((last, _)) = merged.last() {
            bound = bound.min(*last);
        }
    }
    merged.sort_by_key(|(place, _)| *place);
    let all = merged.len();
    merged.retain(|(place, _)| *place <= bound);
    merged.truncate(limit);
    if bound < u64::MAX || merged.len() < all {
        answer.next = merged.last().map(|(place, _)| *place);
    }
    answer.letters = merged.into_iter().map(|(_, letter)| letter).collect();
    Ok(answer)
}

/// The operation on the selected letters.
enum Work<'w> {
    Redrive(&'w mut Redrive),
    Purge(&'w mut DeadLetters),
}

struct Redrive {
    pace: Pace,
    /// The instant from which all letters are staggered; the first call sets it.
    since: u64,
    answer: DeadLetters,
}

async fn walk(store: &Store, queue: &QueueName, select: DeadLetterSelect, work: &mut Work<'_>) -> Result<()> {
    let wanted = match select {
        DeadLetterSelect::All => None,
        DeadLetterSelect::Ids(ids) => {
            store.caps.check_batch(ids.len())?;
            Some(ids.iter().map(id_bytes).collect::<HashSet<_>>())
        }
        _ => return Err(Error::unsupported("this selection of dead letters")),
    };
    let shards = store.shards(queue);
    // Includes every letter that exists now, and none that is dead-lettered later.
    let mut untils = Vec::with_capacity(shards.len());
    let mut letters = 0;
    for shard in &shards {
        let (until, there, _) = name(store, shard, 0, 0, 1).await?;
        untils.push(until);
        letters += there;
    }
    if let Work::Redrive(redrive) = work {
        redrive.pace.check(letters, &store.caps)?;
    }
    let mut rests: Vec<Rest<'_>> = (shards.iter().zip(untils))
        .map(|(shard, until)| Rest { shard, until, from: 0, through: false, next: VecDeque::new() })
        .collect();
    let is_wanted = |id: &Vec<u8>| wanted.as_ref().is_none_or(|wanted| wanted.contains(id));
    if rests.len() > 1
        && let Work::Redrive(redrive) = work
        && !redrive.pace.at_once()
    {
        return redrive.in_turn(store, &mut rests, is_wanted).await;
    }
    for rest in &mut rests {
        while rest.look(store, is_wanted).await? {
            let chosen: Vec<u64> = rest.next.drain(..).collect();
            work.on(store, rest.shard, &chosen).await?;
        }
    }
    Ok(())
}

/// The remaining letters of a shard.
struct Rest<'s> {
    shard: &'s Shard,
    until: u64,
    from: u64,
    through: bool,
    /// The numbers of the next selected letters.
    next: VecDeque<u64>,
}

impl Rest<'_> {
    /// Whether a selected letter is left; if so, `next` is not empty.
    async fn look(&mut self, store: &Store, is_wanted: impl Fn(&Vec<u8>) -> bool) -> Result<bool> {
        while self.next.is_empty() && !self.through {
            let (_, _, named) = name(store, self.shard, self.from, self.until, LETTERS).await?;
            self.through = named.len() < LETTERS;
            self.from = named.last().map_or(self.from, |(number, _)| *number);
            self.next.extend(named.into_iter().filter(|(_, id)| is_wanted(id)).map(|(number, _)| number));
        }
        Ok(!self.next.is_empty())
    }
}

impl Redrive {
    /// Redrives the letters of all shards in the order in which they were dead-lettered, each in its own slot of the
    /// rate. If a letter is kept, its slot stays empty.
    async fn in_turn(
        &mut self,
        store: &Store,
        rests: &mut [Rest<'_>],
        is_wanted: impl Fn(&Vec<u8>) -> bool,
    ) -> Result<()> {
        let mut turn = 0_u64;
        loop {
            let mut taken: Vec<Vec<(u64, u64)>> = vec![Vec::new(); rests.len()];
            for _ in 0..LETTERS {
                let mut first: Option<(u64, usize)> = None;
                for (at, rest) in rests.iter_mut().enumerate() {
                    if rest.look(store, &is_wanted).await? {
                        first = first.into_iter().chain([(rest.next[0], at)]).min();
                    }
                }
                let Some((number, at)) = first else { break };
                rests[at].next.pop_front();
                taken[at].push((number, turn));
                turn += 1;
            }
            if taken.iter().all(Vec::is_empty) {
                return Ok(());
            }
            for (rest, letters) in rests.iter().zip(taken).filter(|(_, letters)| !letters.is_empty()) {
                let mut args = store.args(rest.shard, 3 + 2 * letters.len());
                args.extend([text(self.since), text(self.pace.gap_us()), Vec::new()]);
                args.extend(letters.into_iter().flat_map(|(number, turn)| [text(number), text(turn)]));
                self.run(store, rest.shard, args).await?;
            }
        }
    }

    async fn run(&mut self, store: &Store, shard: &Shard, args: Vec<Vec<u8>>) -> Result<()> {
        let mut reply = store.run(&scripts::DEAD_REDRIVE, shard, None, args).await?;
        self.since = reply.number()?;
        self.answer.affected += reply.number()?;
        self.answer.kept += reply.number()?;
        Ok(())
    }
}

impl Work<'_> {
    async fn on(&mut self, store: &Store, shard: &Shard, letters: &[u64]) -> Result<()> {
        let mut args = store.args(shard, 3 + letters.len());
        match self {
            Self::Redrive(redrive) => {
                args.extend([text(redrive.since), text(redrive.pace.gap_us()), text(redrive.answer.affected)]);
                args.extend(letters.iter().map(text));
                redrive.run(store, shard, args).await?;
            }
            Self::Purge(answer) => {
                args.extend(letters.iter().map(text));
                answer.affected += store.run(&scripts::DEAD_PURGE, shard, None, args).await?.number()?;
            }
        }
        Ok(())
    }
}

/// The last number that is included, the number of letters, and the numbers and ids of the next ones.
type Named = (u64, u64, Vec<(u64, Vec<u8>)>);

async fn name(store: &Store, shard: &Shard, from: u64, until: u64, limit: usize) -> Result<Named> {
    let mut args = store.args(shard, 3);
    args.extend([text(from), text(until), text(limit)]);
    let mut reply = store.run(&scripts::DEAD_IDS, shard, None, args).await?;
    let (until, there) = (reply.number()?, reply.number()?);
    let mut named = Vec::with_capacity(reply.left() / 2);
    while reply.left() > 0 {
        named.push((reply.number()?, reply.bytes()?));
    }
    Ok((until, there, named))
}
