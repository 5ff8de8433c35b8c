//! Dead letters: read by taking them without acknowledging, and put back.
//!
//! Processes that dead-letter at the same time publish in another order than that of their sequences, and what is put back
//! may come in another order than before. So a page is chosen by the letters' sequences, of all that there are.

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

/// How many letters are on their way at once.
const WINDOW: u16 = 500;

/// How many letters are put back at once: of more, RabbitMQ 3.10 forgets the order, and a full queue drops another than the
/// oldest.
const PUT_BACK: usize = 32;

/// How long to wait for letters that were put back: others may be reading them.
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
    // One more than are asked for.
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
        // Where processes dead-lettered at the same microsecond, the next page has all of those.
        let earlier = page.keys().any(|(seq, _)| *seq < beyond);
        page.retain(|(seq, _), _| *seq < beyond || !earlier);
        answer.next = page.last_key_value().map(|((seq, _), _)| *seq);
    }
    answer.letters = page.into_values().filter_map(Message::into_letter).collect();
    Ok(answer)
}

async fn redrive(store: &Arc<Store>, queue: &QueueName, select: DeadLetterSelect, pace: Pace) -> Result<DeadLetters> {
    // They are counted only where it can matter.
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

/// Takes the selected letters away; redriven, each is a task again before it is taken away.
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

/// Reads the letters that are there when it begins, the oldest first: up to a marker that it puts behind them.
struct Reader<'s> {
    store: &'s Arc<Store>,
    /// One at a time in this process: what one has taken, another does not find.
    _turn: MutexGuard<'s, ()>,
    channel: Channel,
    queue: String,
    consumer: Option<Consumer>,
    /// How many the present consumer may still bring.
    room: u16,
    /// What a former one brought beyond that.
    left: VecDeque<Delivery>,
    /// The letters that were read and are still the broker's.
    taken: BTreeSet<DeliveryTag>,
    marker: u128,
    ended: bool,
    /// Whether one of the letters was put back before: a policy may have the broker let go of it.
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

    /// The next letter; nothing after the last.
    async fn next(&mut self) -> Result<Option<(Delivery, Message)>> {
        let doing = "reading dead letters";
        while !self.ended {
            if self.left.is_empty() && self.room == 0 {
                // One that is asked as the connection ends may never be answered.
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
                    Ok(None) => return Err(Error::new(ErrorKind::Unavailable, format!("{doing}: the queue is gone"))),
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
                // Our marker, or one that somebody left behind who did not come to his.
                Ok(message) if matches!(message.kind, Kind::Tombstone { .. }) => {
                    self.ended = message.number == self.marker;
                }
                foreign => {
                    let why = foreign.err().map_or("it is no dead letter", |foreign| foreign.0);
                    if !self.store.outbox.quarantined(&self.queue, why, &delivery.properties, payload).await {
                        continue;
                    }
                }
            }
            self.acknowledge(&delivery).await.map_err(|e| failure::failed(doing, &e, false))?;
        }
        Ok(None)
    }

    /// Not by the delivery's own acker: one that is asked as the connection ends may never answer.
    async fn acknowledge(&self, delivery: &Delivery) -> lapin::Result<()> {
        self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await
    }

    /// A new consumer, with room for more: what was read stays taken, so that the next ones come.
    async fn consume(&mut self) -> lapin::Result<()> {
        if let Some(mut old) = self.consumer.take() {
            self.channel.basic_cancel(old.tag(), BasicCancelOptions::default()).await?;
            // What was acknowledged made room, and so it may have brought more.
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
        let doing = "taking dead letters away";
        for (delivery, _) in letters {
            self.taken.remove(&delivery.delivery_tag);
            self.acknowledge(&delivery).await.map_err(|e| failure::failed(doing, &e, true))?;
        }
        let asked = self.channel.confirm_select(ConfirmSelectOptions::default());
        answered(&self.store.config, doing, true, asked).await
    }

    /// Puts back what was read, in its order.
    async fn close(mut self) {
        let back = async {
            if let Some(consumer) = self.consumer.take() {
                // Cancelled first, or what is given back would come again at once, and go behind the others when the
                // channel ends.
                self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
            }
            let put_back = BasicNackOptions { multiple: true, requeue: true };
            let taken: Vec<DeliveryTag> = self.taken.iter().copied().collect();
            for piece in taken.chunks(PUT_BACK) {
                self.channel.basic_nack(piece[piece.len() - 1], put_back).await?;
            }
            // What came beyond the marker, and that may be nothing.
            self.channel.basic_nack(0, put_back).await?;
            self.channel.confirm_select(ConfirmSelectOptions::default()).await?;
            self.channel.close(200, "done".into()).await
        };
        // The end of the channel puts it back as well.
        let _ = timeout(self.store.config.response_timeout, back).await;
        if self.returned {
            let (store, taken) = (self.store, self.taken.len());
            if let Err(e) = wait_for_all(store, &self.queue, taken).await {
                tracing::debug!(queue = self.queue, error = %e, "what a policy took away comes back later");
            }
        }
    }
}

/// Makes sure that so many letters are back: with a delivery limit in a policy, the broker has let go of some, and there
/// may be nobody who looks after strays.
async fn wait_for_all(store: &Arc<Store>, queue: &str, letters: usize) -> Result<()> {
    let doing = "putting dead letters back";
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
