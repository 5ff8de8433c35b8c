//! What a stock RabbitMQ does with delays, measured on a private one with the bare driver: the figures that decided the
//! shape of this backend (docs/adr/0016). `cargo bench -p delayline-rabbitmq --bench broker [-- part...]`, with the parts
//!
//! - `hop`: how late a message is after one dead-lettering by TTL, at 1, 100 and 1,000 a second, beside one that takes no hop;
//! - `drain`: how fast 1, 2 and 4 parallel queues of one level let go of what expires at one instant;
//! - `bases`: what the levels cost the broker in base 2, 4 and 8, and a ring of buckets that a client opens;
//! - `routing`: what it costs the broker to find a message's level, by one key with a bit for each level or by a key for each
//!   step;
//! - `herd`: 30,000 and 100,000 due at one instant, held by a gate that publishes them to a ready queue, or held by the
//!   consumers themselves;
//! - `queues`: what a quorum queue costs that holds nothing.
//!
//! `DELAYLINE_RELEASE_RABBITMQ` chooses the release. Delays are published with one clock, that of this process.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::{Clock, SystemClock};
use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::sync::{mpsc, watch};

const PAYLOAD: [u8; 100] = [b'x'; 100];
/// Confirms that are awaited together.
const WINDOW: usize = 500;
const PARTS: [&str; 6] = ["hop", "drain", "bases", "routing", "herd", "queues"];

struct Bench {
    server: Rabbit,
    publishing: Connection,
    consuming: Connection,
    names: AtomicUsize,
}

impl Bench {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(|| Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]));
        let server = server.await.unwrap().unwrap();
        let (publishing, consuming) = tokio::try_join!(connect_to(&server), connect_to(&server)).unwrap();
        Self { server, publishing, consuming, names: AtomicUsize::new(0) }
    }

    /// A name that no earlier part of this run used.
    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    async fn publisher(&self) -> Channel {
        let channel = self.publishing.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    /// A quorum queue with these further arguments.
    async fn queue(&self, channel: &Channel, what: &str, arguments: &[(&str, AMQPValue)]) -> String {
        let name = self.name(what);
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), table).await.unwrap();
        name
    }

    /// A queue that dead-letters, at least once, to this exchange.
    async fn level(&self, channel: &Channel, to: &str, ttl_ms: i64) -> String {
        let arguments = [
            ("x-message-ttl", AMQPValue::LongLongInt(ttl_ms)),
            ("x-dead-letter-exchange", text(to)),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        self.queue(channel, "level", &arguments).await
    }

    async fn exchange(&self, channel: &Channel, kind: ExchangeKind) -> String {
        let name = self.name("exchange");
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(name.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
        name
    }

    async fn consumer(&self, queue: &str, prefetch: u16) -> (Channel, Consumer) {
        let channel = self.consuming.create_channel().await.unwrap();
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
        (channel, consumer)
    }

    /// The broker's CPU time so far.
    fn cpu(&self) -> Duration {
        let text = self.server.control(&["eval", "element(1,erlang:statistics(runtime))."]).unwrap();
        Duration::from_millis(text.trim().parse().unwrap())
    }

    fn bytes(&self) -> f64 {
        self.server.control(&["eval", "erlang:memory(total)."]).unwrap().trim().parse().unwrap()
    }
}

async fn connect_to(server: &Rabbit) -> lapin::Result<Connection> {
    Connection::connect(&server.url(), ConnectionProperties::default()).await
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await.unwrap();
}

/// One message to publish: exchange, key, further keys, when it should come out, and when it expires in its first queue.
#[derive(Clone)]
struct Message {
    exchange: String,
    key: String,
    cc: Vec<String>,
    due_us: i64,
    expires_in_ms: Option<i64>,
}

impl Message {
    fn to(queue: &str, due_us: i64) -> Self {
        Self { exchange: String::new(), key: queue.into(), cc: Vec::new(), due_us, expires_in_ms: None }
    }

    /// By steps, the first of them from this exchange.
    fn by(exchange: &str, mut steps: Vec<String>, due_us: i64) -> Self {
        let key = steps.remove(0);
        Self { exchange: exchange.into(), cc: steps, ..Self::to(&key, due_us) }
    }
}

/// Publishes these with all of them on their way at once, and awaits the confirms.
async fn publish(channel: &Channel, messages: impl IntoIterator<Item = Message>) {
    let sending = messages.into_iter().map(|message| async move {
        let properties =
            BasicProperties::default().with_delivery_mode(2).with_timestamp(u64::try_from(message.due_us).unwrap());
        let properties = match message.expires_in_ms {
            Some(ms) => properties.with_expiration(ms.max(0).to_string().into()),
            None => properties,
        };
        let properties = if message.cc.is_empty() {
            properties
        } else {
            let mut table = FieldTable::default();
            let cc = message.cc.iter().map(|key| text(key)).collect::<Vec<_>>();
            table.insert("CC".into(), AMQPValue::FieldArray(cc.into()));
            properties.with_headers(table)
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (message.exchange.into(), message.key.into());
        channel.basic_publish(exchange, key, options, &PAYLOAD, properties).await?.await
    });
    let confirms = try_join_all(sending).await.unwrap();
    assert!(confirms.into_iter().all(|confirm| confirm.is_ack() && confirm.take_message().is_none()));
}

/// Receives so many messages and acknowledges them as they come: how long after its due time each came, in microseconds, and
/// when each came, in order of arrival.
async fn receive(mut consumer: Consumer, channel: Channel, count: usize) -> (Vec<i64>, Vec<i64>) {
    let (mut late, mut came) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut chunks = (&mut consumer).ready_chunks(WINDOW);
    while late.len() < count {
        let deliveries = chunks.next().await.unwrap();
        let mut last = 0;
        for delivery in deliveries {
            let delivery = delivery.unwrap();
            came.push(now_us());
            late.push(now_us() - i64::try_from(delivery.properties.timestamp().unwrap()).unwrap());
            last = delivery.delivery_tag;
        }
        channel.basic_ack(last, BasicAckOptions { multiple: true }).await.unwrap();
    }
    (late, came)
}

/// How late one hop makes a message.
async fn hop() {
    const TTL_MS: i64 = 256;
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let mut table = table(&["a second", "no hop, p50 ms", "p99", "one hop, p50 ms", "p99"]);
    for (rate, count) in [(1_u64, 8_u64), (100, 400), (1_000, 4_000)] {
        let mut row = vec![rate.to_string()];
        for hops in [0, 1] {
            let target = bench.queue(&setup, "target", &[]).await;
            let exchange = bench.exchange(&setup, ExchangeKind::Fanout).await;
            bind(&setup, &target, &exchange, "").await;
            let first = if hops == 0 { target.clone() } else { bench.level(&setup, &exchange, TTL_MS).await };
            let (channel, consumer) = bench.consumer(&target, 1_000).await;
            let receiving = tokio::spawn(receive(consumer, channel, usize::try_from(count).unwrap()));
            let publisher = bench.publisher().await;
            let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
            let mut sent = Vec::new();
            for _ in 0..count {
                ticks.tick().await;
                let (publisher, first) = (publisher.clone(), first.clone());
                sent.push(tokio::spawn(async move {
                    publish(&publisher, [Message::to(&first, now_us() + hops * TTL_MS * 1_000)]).await;
                }));
            }
            join_all(sent).await;
            let (late, _) = receiving.await.unwrap();
            row.extend([ms(quantile(&late, 0.5)), ms(quantile(&late, 0.99))]);
        }
        table.add_row(row);
    }
    println!("{table}\n");
}

/// How fast parallel queues of a level let go of what expires at one instant.
async fn drain() {
    const COUNT: usize = 20_000;
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let mut table = table(&["parallel queues", "messages a second", "last one after ms"]);
    for parallel in [1_usize, 2, 4] {
        let mut rates = Vec::new();
        let mut lasts = Vec::new();
        for _ in 0..3 {
            let target = bench.queue(&setup, "target", &[]).await;
            let exchange = bench.exchange(&setup, ExchangeKind::Fanout).await;
            bind(&setup, &target, &exchange, "").await;
            let mut levels = Vec::new();
            for _ in 0..parallel {
                levels.push(bench.level(&setup, &exchange, 60_000).await);
            }
            let due_us = now_us() + 5_000_000;
            for chunk in 0..COUNT / WINDOW {
                let messages = (0..WINDOW).map(|n| Message {
                    expires_in_ms: Some((due_us - now_us()) / 1_000),
                    ..Message::to(&levels[(chunk * WINDOW + n) % parallel], due_us)
                });
                publish(&setup, messages).await;
            }
            assert!(now_us() < due_us, "the machine is too slow to be ready before it begins");
            let (channel, consumer) = bench.consumer(&target, 2_000).await;
            let (late, _) = receive(consumer, channel, COUNT).await;
            let last = *late.iter().max().unwrap();
            rates.push(COUNT as i64 * 1_000_000 / last);
            lasts.push(last);
        }
        table.add_row([parallel.to_string(), quantile(&rates, 0.5).to_string(), ms(quantile(&lasts, 0.5))]);
    }
    println!("{table}\n");
}

/// What it costs the broker to hold messages for up to 64 units, in levels of several bases, and in a ring.
async fn bases() {
    const UNIT_MS: i64 = 64;
    const UNITS: u64 = 64;
    const RATE: u64 = 400;
    const COUNT: usize = 4_000;
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let head = ["shape", "queues", "hops a message", "broker us a message", "late p50 ms", "p99 ms"];
    let mut table = table(&head);
    // The cost of publishing and consuming alone stands in the first row.
    for (name, bits) in [("no level", 0_u32), ("base 2", 1), ("base 4", 2), ("base 8", 3), ("base 64", 6)] {
        let target = bench.queue(&setup, "target", &[]).await;
        let (behind, queues) = tree(&bench, &setup, &target, bits, UNIT_MS).await;
        let (channel, consumer) = bench.consumer(&target, 2_000).await;
        let receiving = tokio::spawn(receive(consumer, channel, COUNT));
        let before = bench.cpu();
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        let (mut rng, mut hops, mut sent) = (fastrand::Rng::with_seed(7), 0, Vec::new());
        for _ in 0..COUNT {
            ticks.tick().await;
            let units = rng.u64(0..UNITS);
            let due_us = now_us() + if bits == 0 { 0 } else { units as i64 * UNIT_MS * 1_000 };
            let steps = steps(&digits(units, bits, 6_u32.checked_div(bits).unwrap_or(0)));
            hops += steps.len().saturating_sub(1);
            let message = match steps.first() {
                Some((highest, _)) => {
                    let exchange = &behind[highest + 1];
                    Message::by(exchange, steps.into_iter().map(|(_, key)| key).collect(), due_us)
                }
                None => Message::to(&target, due_us),
            };
            let setup = setup.clone();
            sent.push(tokio::spawn(async move { publish(&setup, [message]).await }));
        }
        join_all(sent).await;
        let (late, _) = receiving.await.unwrap();
        let cost = (bench.cpu() - before).as_micros() as usize / COUNT;
        let hops = format!("{:.1}", hops as f64 / COUNT as f64);
        let late = [ms(quantile(&late, 0.5)), ms(quantile(&late, 0.99))];
        table.add_row([name.into(), queues.to_string(), hops, cost.to_string()].into_iter().chain(late));
    }
    println!("{table}\n");
}

/// So many digits of a delay, the lowest first, with `bits` for each.
fn digits(units: u64, bits: u32, count: u32) -> Vec<u64> {
    (0..count).map(|level| units >> (level * bits) & ((1 << bits) - 1)).collect()
}

/// The steps through the levels whose digit is not zero, from the one above the highest: where each leads, and its key. None if
/// all are.
fn steps(digits: &[u64]) -> Vec<(usize, String)> {
    let Some(highest) = digits.iter().rposition(|digit| *digit != 0) else { return vec![] };
    let (mut from, mut steps) = (highest + 1, Vec::new());
    for level in (0..=highest).rev().filter(|level| digits[*level] != 0) {
        steps.push((level, format!("{from}>{level}:{}", digits[level])));
        from = level;
    }
    steps.push((0, format!("{from}>out")));
    steps
}

/// Levels of so many bits over six bits: the exchanges behind each, and above all, and how many queues there are.
async fn tree(bench: &Bench, setup: &Channel, target: &str, bits: u32, unit_ms: i64) -> (Vec<String>, usize) {
    if bits == 0 {
        return (vec![], 0);
    }
    let levels = 6 / bits;
    let mut behind = Vec::new();
    for _ in 0..=levels {
        behind.push(bench.exchange(setup, ExchangeKind::Direct).await);
    }
    let mut queues = 0;
    for level in 0..levels {
        bind(setup, target, &behind[level as usize], &format!("{level}>out")).await;
        for digit in 1..1_u64 << bits {
            let ttl = unit_ms * i64::try_from(digit << (level * bits)).unwrap();
            let queue = bench.level(setup, &behind[level as usize], ttl).await;
            for from in level + 1..=levels {
                bind(setup, &queue, &behind[from as usize], &format!("{from}>{level}:{digit}")).await;
            }
            queues += 1;
        }
    }
    (behind, queues)
}

/// How the first of 21 levels in base 2 is found, by what a message of an hour has for keys.
async fn routing() {
    const LEVELS: u32 = 21;
    const COUNT: usize = 20_000;
    const TICKS: u64 = 0b110_1101_1100;
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let out = bench.exchange(&setup, ExchangeKind::Fanout).await;
    let queue = bench.level(&setup, &out, 3_600_000).await;
    let highest = TICKS.ilog2();
    // A bit for each level, the highest first, and the name of a queue: a 1 goes in, a 0 goes on.
    let topic = bench.exchange(&setup, ExchangeKind::Topic).await;
    let pattern = |bit: char| {
        let (above, below) = ("*.".repeat((LEVELS - 1 - highest) as usize), "*.".repeat(highest as usize));
        format!("{above}{bit}.{below}*")
    };
    bind(&setup, &queue, &topic, &pattern('1')).await;
    let options = lapin::options::ExchangeBindOptions::default();
    let (to, from) = (out.as_str().into(), topic.as_str().into());
    setup.exchange_bind(to, from, pattern('0').as_str().into(), options, FieldTable::default()).await.unwrap();
    let mut bits: String = (0..LEVELS).rev().map(|bit| if TICKS >> bit & 1 == 1 { "1." } else { "0." }).collect();
    bits.push_str("exams");
    // Steps; the exchange knows those to all lower levels.
    let direct = bench.exchange(&setup, ExchangeKind::Direct).await;
    let others = bench.level(&setup, &out, 3_600_000).await;
    for level in 0..highest {
        bind(&setup, &others, &direct, &format!("{}>{level}:1", highest + 1)).await;
    }
    let steps: Vec<String> =
        steps(&digits(TICKS, 1, LEVELS)).into_iter().map(|(_, key)| key).chain(["exams".into()]).collect();
    bind(&setup, &queue, &direct, &steps[0]).await;
    let mut table = table(&["found by", "published a second", "broker us a message"]);
    let by_bits = Message { exchange: topic, ..Message::to(&bits, now_us()) };
    for (name, message) in [
        ("the queue's name", Message::to(&queue, now_us())),
        ("a key with a bit for each level, topic exchange", by_bits),
        ("a key for each step, direct exchange", Message::by(&direct, steps, now_us())),
    ] {
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (before, began) = (bench.cpu(), now_us());
            for _ in 0..COUNT / WINDOW {
                publish(&setup, (0..WINDOW).map(|_| message.clone())).await;
            }
            rates.push(COUNT as i64 * 1_000_000 / (now_us() - began));
            costs.push(i64::try_from((bench.cpu() - before).as_micros()).unwrap() / COUNT as i64);
        }
        table.add_row([name.into(), quantile(&rates, 0.5).to_string(), quantile(&costs, 0.5).to_string()]);
    }
    println!("{table}\n");
}

/// Many messages due at one instant: a gate that holds them and publishes them to a ready queue when they are due, or
/// consumers that hold them themselves.
async fn herd() {
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let mut table = table(&["due at once", "who holds", "all held after s", "first ms late", "all done after s"]);
    for count in [30_000_usize, 100_000] {
        for consumers_hold in [true, false] {
            let single = AMQPValue::Boolean(!consumers_hold);
            let gate = bench.queue(&setup, "gate", &[("x-single-active-consumer", single)]).await;
            let begun = now_us();
            let (go, _) = watch::channel(None);
            let (told, mut held) = mpsc::channel(8);
            let holders = if consumers_hold { 4 } else { 1 };
            let ready = bench.queue(&setup, "ready", &[]).await;
            let mut working = Vec::new();
            for _ in 0..if consumers_hold { 0 } else { 4 } {
                let (channel, consumer) = bench.consumer(&ready, 500).await;
                working.push(tokio::spawn(receive_until(consumer, channel)));
            }
            let mut holding = Vec::new();
            for _ in 0..holders {
                let (channel, consumer) = bench.consumer(&gate, u16::MAX).await;
                let ready = (!consumers_hold).then(|| ready.clone());
                let publisher = bench.publisher().await;
                let share = (count / holders).min(60_000);
                let held = told.clone();
                let due = go.subscribe();
                holding.push(tokio::spawn(hold(
                    consumer,
                    channel,
                    publisher,
                    ready,
                    share,
                    count / holders,
                    due,
                    held,
                )));
            }
            for _ in 0..count / WINDOW {
                publish(&setup, (0..WINDOW).map(|_| Message::to(&gate, begun))).await;
            }
            let mut ready_us = 0;
            for _ in 0..holders {
                ready_us = held.recv().await.unwrap();
            }
            // The herd is due a second from now.
            let due_us = now_us() + 1_000_000;
            go.send_replace(Some(due_us));
            let mut came = Vec::new();
            for task in holding {
                came.extend(task.await.unwrap());
            }
            if !consumers_hold {
                came.clear();
                for task in working {
                    came.extend(task.await.unwrap());
                }
                assert_eq!(came.len(), count);
            }
            let (first, last) = (came.iter().min().unwrap() - due_us, came.iter().max().unwrap() - due_us);
            let who = if consumers_hold { "4 consumers" } else { "a gate" };
            let seconds = |us: i64| format!("{:.2}", us as f64 / 1e6);
            table.add_row([count.to_string(), who.into(), seconds(ready_us - begun), ms(first), seconds(last)]);
        }
    }
    println!("{table}\n");
}

/// Holds what comes until it is due, then publishes it to `ready`, if there is one, and acknowledges. Answers when each was
/// done.
#[allow(clippy::too_many_arguments, reason = "a benchmark")]
async fn hold(
    mut consumer: Consumer,
    channel: Channel,
    publisher: Channel,
    ready: Option<String>,
    share: usize,
    count: usize,
    mut due: watch::Receiver<Option<i64>>,
    told: mpsc::Sender<i64>,
) -> Vec<i64> {
    let mut heap = std::collections::BinaryHeap::new();
    while heap.len() < share {
        let delivery = consumer.next().await.unwrap().unwrap();
        heap.push(std::cmp::Reverse((0, delivery.delivery_tag)));
    }
    told.send(now_us()).await.unwrap();
    let due_us = due.wait_for(Option::is_some).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_micros(u64::try_from(due_us - now_us()).unwrap())).await;
    let mut came = Vec::with_capacity(count);
    while came.len() < count {
        while came.len() + heap.len() < count && heap.len() < WINDOW {
            let delivery = consumer.next().await.unwrap().unwrap();
            heap.push(std::cmp::Reverse((0, delivery.delivery_tag)));
        }
        let tags: Vec<_> = (0..WINDOW).map_while(|_| heap.pop()).map(|entry| entry.0.1).collect();
        if let Some(ready) = &ready {
            publish(&publisher, tags.iter().map(|_| Message::to(ready, due_us))).await;
        }
        channel.basic_ack(*tags.last().unwrap(), BasicAckOptions { multiple: true }).await.unwrap();
        came.extend(tags.iter().map(|_| now_us()));
    }
    came
}

/// Receives until nothing has come for ten seconds after the first: when each came.
async fn receive_until(mut consumer: Consumer, channel: Channel) -> Vec<i64> {
    let mut came = Vec::new();
    let mut chunks = (&mut consumer).ready_chunks(WINDOW);
    let mut patience = Duration::from_secs(60);
    while let Ok(Some(deliveries)) = tokio::time::timeout(patience, chunks.next()).await {
        patience = Duration::from_secs(10);
        let last = deliveries.into_iter().map(|delivery| delivery.unwrap().delivery_tag).max().unwrap();
        came.resize_with(usize::try_from(last).unwrap(), now_us);
        channel.basic_ack(last, BasicAckOptions { multiple: true }).await.unwrap();
    }
    came
}

/// What a quorum queue costs while it holds nothing.
async fn queues() {
    const COUNT: usize = 100;
    let bench = Bench::new().await;
    let setup = bench.publisher().await;
    let exchange = bench.exchange(&setup, ExchangeKind::Fanout).await;
    let (bytes, begun) = (bench.bytes(), now_us());
    for _ in 0..COUNT {
        bench.level(&setup, &exchange, 1_000).await;
    }
    let took = now_us() - begun;
    let each = (bench.bytes() - bytes) / COUNT as f64 / 1024.0;
    let before = bench.cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = (bench.cpu() - before).as_millis() / 10;
    let mut table =
        table(&["quorum queues", "declared in ms each", "KiB each", "broker's CPU, ms a second, with all of them"]);
    table.add_row([COUNT.to_string(), ms(took / COUNT as i64), format!("{each:.0}"), idle.to_string()]);
    println!("{table}\n");
}

fn quantile(values: &[i64], q: f64) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn ms(us: i64) -> String {
    format!("{:.1}", us as f64 / 1e3)
}

fn now_us() -> i64 {
    SystemClock::new().wall().unix_micros()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let does =
        |part: &str| if named.is_empty() { PARTS.contains(&part) } else { named.iter().any(|name| name == part) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{}\n", Release::chosen(Kind::RabbitMq).unwrap().version().unwrap());
        if does("hop") {
            hop().await;
        }
        if does("drain") {
            drain().await;
        }
        if does("bases") {
            bases().await;
        }
        if does("routing") {
            routing().await;
        }
        if does("herd") {
            herd().await;
        }
        if does("queues") {
            queues().await;
        }
    });
}
