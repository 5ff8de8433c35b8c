//! Lists, redrives and purges dead letters. They are read by consuming them without acknowledging, and then returned.
//!
//! Processes that dead-letter tasks at the same time may publish them in another order than that of their sequences,
//! and returned letters may get another order. So a page is selected from all letters, by their sequences.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delayline_backend_kit::Pace;
use delayline_core::limits::PAGE_MAX;
use delayline_core::{
    DeadLetterOp, DeadLetterSelect, DeadLetters, Error, ErrorKind, QueueName, Result, TaskId, meter, owned,
};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicQosOptions, ConfirmSelectOptions, QueuePurgeOptions,
};
use lapin::types::DeliveryTag;
use lapin::{Channel, Consumer};
use tokio::sync::MutexGuard;
use tokio::time::{sleep, timeout};

use crate::codec::kind::Kind;
use crate::codec::message::{self, Message};
use crate::limits::NAME;
use crate::store::Store;
use crate::strays;
use crate::transport::asking::{answered, close, in_time, look_for_queue};
use crate::transport::{driver, failure};

/// Prefetch of a reader.
const WINDOW: u16 = 500;

/// Number of letters that are returned at once. With more, RabbitMQ 3.10 loses their order, and a full queue drops a
/// letter that is not the oldest.
const PUT_BACK: usize = 32;

/// Pauses between checks whether returned letters are back in the queue. Other clients may be reading them.
const BACK_PAUSES: [Duration; 7] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];

pub(crate) async fn dead_letters(store: &Arc<Store>, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
    store.lifecycle.open()?;
    let (store, queue) = (store.clone(), queue.clone());
    owned(async move { run(&store, &queue, op).await }, |_| async {}).await
}

async fn run(store: &Arc<Store>, queue: &QueueName, op: DeadLetterOp) -> Result<DeadLetters> {
    match op {
        DeadLetterOp::List { after, limit } => list(store, queue, after, limit.min(PAGE_MAX)).await,
        DeadLetterOp::Redrive { select, rate } => redrive(store, queue, select, Pace::new(rate)?).await,
        DeadLetterOp::Purge { select: DeadLetterSelect::All } => purge(store, queue).await,
        DeadLetterOp::Purge { select } => end_selected(store, queue, select, None).await,
        _ => Err(Error::unsupported("this operation on dead letters")),
    }
}

async fn list(store: &Arc<Store>, queue: &QueueName, after: Option<u64>, limit: usize) -> Result<DeadLetters> {
    let mut answer = DeadLetters::default();
    if limit == 0 {
        return Ok(answer);
    }
    let mut reader = Reader::open(store, queue).await?;
    let mut page = BTreeMap::new();
    // Keep one more than the limit.
    while let Some((_, letter)) = reader.next().await? {
        if after.is_none_or(|after| letter.seq > after) {
            page.insert((letter.seq, letter.number), letter);
        }
        if page.len() > limit + 1 {
            page.pop_last();
        }
    }
    reader.close().await;
    if page.len() > limit
        && let Some(((beyond, _), _)) = page.pop_last()
    {
        // Letters that processes dead-lettered at the same microsecond all go to the next page.
        let earlier = page.keys().any(|(seq, _)| *seq < beyond);
        page.retain(|(seq, _), _| *seq < beyond || !earlier);
        answer.next = page.last_key_value().map(|((seq, _), _)| *seq);
    }
    answer.letters = page.into_values().filter_map(Message::into_letter).collect();
    Ok(answer)
}

async fn redrive(store: &Arc<Store>, queue: &QueueName, select: DeadLetterSelect, pace: Pace) -> Result<DeadLetters> {
    // Count the letters only if the result can matter.
    if pace.check(store.config.dead_letters_max.into(), &store.caps).is_err() {
        let mut letters = 0;
        let mut reader = Reader::open(store, queue).await?;
        while let Some((_, letter)) = reader.next().await? {
            letters += u64::from(selects(&select, &letter)?);
        }
        reader.close().await;
        pace.check(letters, &store.caps)?;
    }
    end_selected(store, queue, select, Some(pace.gap())).await
}

fn selects(select: &DeadLetterSelect, letter: &Message) -> Result<bool> {
    match select {
        DeadLetterSelect::All => Ok(true),
        DeadLetterSelect::Ids(ids) => Ok(ids.contains(&letter.id)),
        _ => Err(Error::unsupported("this selection of dead letters")),
    }
}

/// Removes all letters at once.
async fn purge(store: &Arc<Store>, queue: &QueueName) -> Result<DeadLetters> {
    store.topology.ensure(queue).await?;
    let channel = store.consuming.channel().await?;
    let doing = "purging dead letters";
    let name = store.names.dead(queue);
    let purged = channel.queue_purge(name.into(), QueuePurgeOptions::default());
    let n = answered(&store.config, doing, true, purged).await?;
    let mut answer = DeadLetters::default();
    answer.affected = n.into();
    Ok(answer)
}

/// Removes the selected letters. For a redrive, each letter is published as a task before it is removed.
async fn end_selected(
    store: &Arc<Store>,
    queue: &QueueName,
    select: DeadLetterSelect,
    apart: Option<Duration>,
) -> Result<DeadLetters> {
    let ids: Option<HashSet<TaskId>> = match select {
        DeadLetterSelect::All => None,
        DeadLetterSelect::Ids(ids) => Some(ids.into_iter().collect()),
        _ => return Err(Error::unsupported("this selection of dead letters")),
    };
    let mut answer = DeadLetters::default();
    let mut reader = Reader::open(store, queue).await?;
    let mut turn = Duration::ZERO;
    let from = store.time.now();
    let mut batch: Vec<(Delivery, Message)> = Vec::new();
    loop {
        let next = reader.next().await?;
        let ended = next.is_none();
        if let Some((delivery, message)) = next
            && ids.as_ref().is_none_or(|ids| ids.contains(&message.id))
        {
            batch.push((delivery, message));
        }
        if batch.len() >= usize::from(WINDOW) / 2 || (ended && !batch.is_empty()) {
            let batch = std::mem::take(&mut batch);
            let n = batch.len() as u64;
            if let Some(apart) = apart {
                publish_again(store, queue, &batch, from, &mut turn, apart).await?;
            }
            reader.take_away(batch).await?;
            answer.affected += n;
        }
        if ended {
            break;
        }
    }
    reader.close().await;
    Ok(answer)
}

async fn publish_again(
    store: &Arc<Store>,
    queue: &QueueName,
    batch: &[(Delivery, Message)],
    from: delayline_core::Timestamp,
    turn: &mut Duration,
    apart: Duration,
) -> Result<()> {
    let first = store.counters.sequences(batch.len());
    let tasks = (first..).zip(batch).map(|(seq, (_, letter))| {
        let due_ms = from.saturating_add(*turn).unix_millis_ceil();
        *turn = turn.saturating_add(apart);
        Message {
            due_ms,
            seq,
            attempts: 0,
            expires_ms: None,
            failure: None,
            number: store.ids.number(),
            kind: Kind::Task,
            ..letter.clone()
        }
    });
    let tasks: Vec<Message> = tasks.collect();
    let outgoing = tasks.iter().map(|task| store.outbox.route(queue, task)).collect();
    for answer in store.outbox.publish(queue, outgoing).await {
        answer.map_err(|e| e.into_error("redriving"))?;
    }
    Ok(())
}

/// Reads the letters that are in the queue at the start, the oldest first, up to a marker that it publishes after them.
struct Reader<'s> {
    store: &'s Arc<Store>,
    /// Only one reader at a time in this process: a second one would not find the letters of the first.
    _turn: MutexGuard<'s, ()>,
    channel: Channel,
    queue: String,
    consumer: Option<Consumer>,
    /// Number of messages that the current consumer may still deliver.
    room: u16,
    /// Further messages from a previous consumer.
    left: VecDeque<Delivery>,
    /// Letters that were read and are unacknowledged.
    taken: BTreeSet<DeliveryTag>,
    marker: u128,
    ended: bool,
    /// Whether one of the letters was returned before: a policy may make the broker drop it.
    returned: bool,
}

impl<'s> Reader<'s> {
    async fn open(store: &'s Arc<Store>, queue: &QueueName) -> Result<Self> {
        store.topology.ensure(queue).await?;
        let turn = store.reading.lock().await;
        let (name, marker) = (store.names.dead(queue), store.ids.number());
        let message = Message::marker(marker, store.ids.task_id());
        for answer in store.outbox.publish(queue, vec![store.outbox.to_queue(name.clone(), &message)]).await {
            answer.map_err(|e| e.into_error("reading dead letters"))?;
        }
        let channel = store.consuming.channel().await?;
        Ok(Self {
            store,
            _turn: turn,
            channel,
            queue: name,
            consumer: None,
            room: 0,
            left: VecDeque::new(),
            taken: BTreeSet::new(),
            marker,
            ended: false,
            returned: false,
        })
    }

    /// The next letter; `None` after the last.
    async fn next(&mut self) -> Result<Option<(Delivery, Message)>> {
        let doing = "reading dead letters";
        while !self.ended {
            if self.left.is_empty() && self.room == 0 {
                // With a timeout: if the connection ends at that moment, the request may never be answered.
                let store = self.store;
                in_time(&store.config, doing, false, self.consume()).await?;
            }
            let delivery = if let Some(left) = self.left.pop_front() {
                left
            } else {
                let Some(consumer) = &mut self.consumer else { break };
                self.room -= 1;
                match timeout(self.store.config.response_timeout, consumer.next()).await {
                    Ok(Some(Ok(delivery))) => delivery,
                    Ok(Some(Err(e))) => return Err(failure::failed(doing, &e, false)),
                    Ok(None) => {
                        return Err(Error::new(ErrorKind::Unavailable, format!("{doing}: the queue was deleted")));
                    }
                    Err(_) => return Err(failure::silent(doing, &self.store.config, false)),
                }
            };
            let payload = Bytes::from(delivery.data.clone());
            match Message::read(&delivery.properties, payload.clone()) {
                Ok(message) if matches!(message.kind, Kind::Dead { .. }) => {
                    self.taken.insert(delivery.delivery_tag);
                    self.returned |= message::delivery_count(&delivery.properties) > 0;
                    return Ok(Some((delivery, message)));
                }
                // The marker of this reader, or one that an interrupted reader left behind.
                Ok(message) if matches!(message.kind, Kind::Tombstone { .. }) => {
                    self.ended = message.number == self.marker;
                }
                foreign => {
                    let why = foreign.err().map_or("it is not a dead letter", |foreign| foreign.0);
                    if !self.store.outbox.quarantine(&self.queue, why, &delivery.properties, payload).await {
                        continue;
                    }
                }
            }
            self.acknowledge(&delivery).await.map_err(|e| failure::failed(doing, &e, false))?;
        }
        Ok(None)
    }

    /// Acknowledges a delivery. Not with the delivery's acker: if the connection ends at that moment, it may never
    /// return.
    async fn acknowledge(&self, delivery: &Delivery) -> lapin::Result<()> {
        self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await
    }

    /// Starts a new consumer with more room. The letters that were read stay unacknowledged, so that it receives the
    /// next ones.
    async fn consume(&mut self) -> lapin::Result<()> {
        if let Some(mut old) = self.consumer.take() {
            self.channel.basic_cancel(old.tag(), BasicCancelOptions::default()).await?;
            // Acknowledgements made room, so the old consumer may have received more.
            while let Some(Some(delivery)) = old.next().now_or_never() {
                self.left.push_back(delivery?);
            }
        }
        self.room = WINDOW;
        meter::round_trip(NAME);
        self.channel.basic_qos(self.room, BasicQosOptions::default()).await?;
        self.consumer =
            Some(driver::consume(&self.channel, &self.queue, self.store.consuming.consumer_arguments()).await?);
        Ok(())
    }

    /// Acknowledges letters, and waits until the broker has processed that.
    async fn take_away(&mut self, letters: Vec<(Delivery, Message)>) -> Result<()> {
        let doing = "removing dead letters";
        for (delivery, _) in letters {
            self.taken.remove(&delivery.delivery_tag);
            self.acknowledge(&delivery).await.map_err(|e| failure::failed(doing, &e, true))?;
        }
        let asked = self.channel.confirm_select(ConfirmSelectOptions::default());
        answered(&self.store.config, doing, true, asked).await
    }

    /// Returns the letters that were read, in their order.
    async fn close(mut self) {
        let back = async {
            if let Some(consumer) = self.consumer.take() {
                // Cancel first. Otherwise the returned letters would be delivered here again at once, and go behind the
                // others when the channel closes.
                self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
            }
            let put_back = BasicNackOptions { multiple: true, requeue: true };
            let taken: Vec<DeliveryTag> = self.taken.iter().copied().collect();
            for piece in taken.chunks(PUT_BACK) {
                self.channel.basic_nack(piece[piece.len() - 1], put_back).await?;
            }
            // Messages that arrived after the marker, if any.
            self.channel.basic_nack(0, put_back).await?;
            self.channel.confirm_select(ConfirmSelectOptions::default()).await?;
            self.channel.close(200, "done".into()).await
        };
        // Closing the channel returns them as well.
        let _ = timeout(self.store.config.response_timeout, back).await;
        if self.returned {
            let (store, taken) = (self.store, self.taken.len());
            if let Err(e) = wait_for_all(store, &self.queue, taken).await {
                tracing::debug!(queue = self.queue, error = %e, "some returned dead letters are not back yet");
            }
        }
    }
}

/// Makes sure that this many letters are back in the queue. With a delivery limit in a policy, the broker may have
/// dropped some, and there may be no process that handles strays.
async fn wait_for_all(store: &Arc<Store>, queue: &str, letters: usize) -> Result<()> {
    let doing = "returning dead letters";
    let channel = store.consuming.channel().await?;
    for pause in BACK_PAUSES {
        let there = answered(&store.config, doing, false, look_for_queue(&channel, queue)).await?.message_count();
        if usize::try_from(there).is_ok_and(|there| there >= letters) {
            break;
        }
        strays::put_all_on_their_way(store).await?;
        sleep(pause).await;
    }
    close(channel).await;
    Ok(())
}
