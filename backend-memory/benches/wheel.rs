//! The wheel by itself, beside what else there is to hold timers with: `cargo bench -p delayline-memory --bench wheel`.
//!
//! At N pending timers, due evenly over an hour of simulated time: inserting N, then firing one and inserting one
//! (a cycle) as time moves on, then cancelling what is left. Only the wheel and the heap keep exact order within a
//! millisecond; only the wheel and the map are asked to. `DelayQueue` is tokio-util's, under paused time.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::DelayQueue;

#[allow(dead_code, unreachable_pub, unused_imports, reason = "the wheel's own source: it is not public")]
#[path = "../src/wheel/mod.rs"]
mod wheel;

#[allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]
mod support;

use support::{count, median, rate, sizes, table};
use wheel::{Key, Wheel};

/// Timers are due within this many simulated milliseconds.
const SPREAD_MS: u64 = 3_600_000;
const RUNS: usize = 3;

/// One way to hold timers: time is in simulated milliseconds from 0.
trait Timers {
    fn insert(&mut self, due_ms: u64, id: u32);
    /// Fires everything due by then, in order if it has one; answers how many.
    fn fire(&mut self, now_ms: u64, each: impl FnMut(u32)) -> usize;
    /// Takes out what was inserted under this id.
    fn cancel(&mut self, id: u32);
    const ORDERED: bool;
}

#[derive(Default)]
struct OurWheel {
    wheel: Option<Wheel>,
    live: Vec<u64>,
    seq: u64,
    stale: usize,
}

impl Timers for OurWheel {
    const ORDERED: bool = true;
    fn insert(&mut self, due_ms: u64, id: u32) {
        self.seq += 1;
        if self.live.len() <= id as usize {
            self.live.resize(id as usize + 1, 0);
        }
        self.live[id as usize] = self.seq;
        self.wheel.get_or_insert_with(|| Wheel::new(0)).insert(Key::new(due_ms, self.seq, id));
    }
    fn fire(&mut self, now_ms: u64, mut each: impl FnMut(u32)) -> usize {
        let wheel = self.wheel.as_mut().unwrap();
        while !wheel.advance(now_ms, &mut 32_768) {}
        let mut fired = 0;
        while let Some(key) = wheel.pop_due(now_ms) {
            if self.live[key.slot() as usize] == key.seq() {
                each(key.slot());
                fired += 1;
            }
        }
        fired
    }
    /// As the store does it: the key goes stale, and stale keys are swept once they outnumber the live ones.
    fn cancel(&mut self, id: u32) {
        self.live[id as usize] = 0;
        self.stale += 1;
        let wheel = self.wheel.as_mut().unwrap();
        if self.stale > 64 && self.stale * 2 > wheel.len() {
            let live = &self.live;
            let progress = wheel.sweep(|key| live[key.slot() as usize] == key.seq(), &mut 64);
            self.stale -= progress.dropped;
        }
    }
}

#[derive(Default)]
struct Heap {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    live: Vec<u64>,
    seq: u64,
}

impl Timers for Heap {
    const ORDERED: bool = true;
    fn insert(&mut self, due_ms: u64, id: u32) {
        self.seq += 1;
        if self.live.len() <= id as usize {
            self.live.resize(id as usize + 1, 0);
        }
        self.live[id as usize] = self.seq;
        self.heap.push(Reverse((due_ms, self.seq, id)));
    }
    fn fire(&mut self, now_ms: u64, mut each: impl FnMut(u32)) -> usize {
        let mut fired = 0;
        while self.heap.peek().is_some_and(|Reverse((due, _, _))| *due <= now_ms) {
            let Reverse((_, seq, id)) = self.heap.pop().unwrap();
            if self.live[id as usize] == seq {
                each(id);
                fired += 1;
            }
        }
        fired
    }
    fn cancel(&mut self, id: u32) {
        self.live[id as usize] = 0;
    }
}

#[derive(Default)]
struct Map {
    map: BTreeMap<(u64, u64), u32>,
    keys: Vec<(u64, u64)>,
    seq: u64,
}

impl Timers for Map {
    const ORDERED: bool = true;
    fn insert(&mut self, due_ms: u64, id: u32) {
        self.seq += 1;
        if self.keys.len() <= id as usize {
            self.keys.resize(id as usize + 1, (0, 0));
        }
        self.keys[id as usize] = (due_ms, self.seq);
        self.map.insert((due_ms, self.seq), id);
    }
    fn fire(&mut self, now_ms: u64, mut each: impl FnMut(u32)) -> usize {
        let mut fired = 0;
        while let Some(first) = self.map.first_entry()
            && first.key().0 <= now_ms
        {
            each(first.remove());
            fired += 1;
        }
        fired
    }
    fn cancel(&mut self, id: u32) {
        self.map.remove(&self.keys[id as usize]);
    }
}

struct Tokio {
    runtime: tokio::runtime::Runtime,
    queue: DelayQueue<u32>,
    keys: Vec<Option<tokio_util::time::delay_queue::Key>>,
    start: Instant,
    now_ms: u64,
}

impl Default for Tokio {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (queue, start) = {
            let _inside = runtime.enter();
            (DelayQueue::new(), Instant::now())
        };
        Self { runtime, queue, keys: Vec::new(), start, now_ms: 0 }
    }
}

impl Timers for Tokio {
    const ORDERED: bool = false;
    fn insert(&mut self, due_ms: u64, id: u32) {
        let _inside = self.runtime.enter();
        if self.keys.len() <= id as usize {
            self.keys.resize(id as usize + 1, None);
        }
        self.keys[id as usize] = Some(self.queue.insert_at(id, self.start + Duration::from_millis(due_ms)));
    }
    fn fire(&mut self, now_ms: u64, mut each: impl FnMut(u32)) -> usize {
        let step = Duration::from_millis(now_ms - self.now_ms);
        self.now_ms = now_ms;
        let queue = &mut self.queue;
        let keys = &mut self.keys;
        self.runtime.block_on(async {
            tokio::time::advance(step).await;
            let mut fired = 0;
            std::future::poll_fn(|cx| {
                while let std::task::Poll::Ready(Some(expired)) = queue.poll_expired(cx) {
                    keys[*expired.get_ref() as usize] = None;
                    each(expired.into_inner());
                    fired += 1;
                }
                std::task::Poll::Ready(())
            })
            .await;
            fired
        })
    }
    fn cancel(&mut self, id: u32) {
        let _inside = self.runtime.enter();
        if let Some(key) = self.keys[id as usize].take() {
            self.queue.remove(&key);
        }
    }
}

/// Inserts, cycles and cancels a second, at `pending`.
fn measure<T: Timers + Default>(pending: usize, seed: u64) -> [f64; 3] {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut timers = T::default();
    let dues: Vec<u64> = (0..pending).map(|_| 1 + rng.u64(0..SPREAD_MS)).collect();
    let began = clock();
    for (id, due) in dues.iter().enumerate() {
        timers.insert(*due, id as u32);
    }
    let inserts = pending as f64 / seconds(began);

    // Steps in which about a thousand fall due, or a millisecond.
    let step = (SPREAD_MS as usize * 1_000 / pending).max(1) as u64;
    let cycles = pending.clamp(1_000_000, 4_000_000);
    let (mut done, mut now, mut fired) = (0, 0, Vec::new());
    let began = clock();
    while done < cycles {
        now += step;
        done += timers.fire(now, |id| fired.push(id));
        for id in fired.drain(..) {
            timers.insert(now + 1 + rng.u64(0..SPREAD_MS), id);
        }
    }
    let cycled = done as f64 / seconds(began);

    let mut ids: Vec<u32> = (0..pending as u32).collect();
    rng.shuffle(&mut ids);
    let began = clock();
    for id in &ids {
        timers.cancel(*id);
    }
    let cancels = pending as f64 / seconds(began);
    black_box(&mut timers);
    [inserts, cycled, cancels]
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn seconds(began: std::time::Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

fn main() {
    println!("a second, median of {RUNS} interleaved runs; dues spread over an hour of simulated time\n");
    let mut out =
        table(&["pending", "what", "exact order", "insert", "fire + insert", "cancel", "fire + insert, ratio"]);
    for pending in sizes() {
        let mut runs: [Vec<[f64; 3]>; 4] = Default::default();
        for run in 0..RUNS as u64 {
            runs[0].push(measure::<OurWheel>(pending, run));
            runs[1].push(measure::<Tokio>(pending, run));
            runs[2].push(measure::<Heap>(pending, run));
            runs[3].push(measure::<Map>(pending, run));
        }
        let of = |which: usize, what: usize| median(runs[which].iter().map(|run| run[what]).collect());
        let names = [
            ("delayline wheel", OurWheel::ORDERED),
            ("tokio-util DelayQueue", Tokio::ORDERED),
            ("BinaryHeap", Heap::ORDERED),
            ("BTreeMap", Map::ORDERED),
        ];
        for (which, (name, ordered)) in names.into_iter().enumerate() {
            out.add_row([
                count(pending),
                name.to_owned(),
                if ordered { "yes" } else { "no" }.to_owned(),
                rate(of(which, 0)),
                rate(of(which, 1)),
                rate(of(which, 2)),
                format!("{:.2}", of(which, 1) / of(1, 1)),
            ]);
        }
    }
    println!("{out}");
}
