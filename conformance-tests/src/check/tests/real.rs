//! Histories of the memory backend at work: what it does is right, so nothing may be reported, and much must have been
//! checked.

use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Change, Claim, ClaimedTask, Clock as _, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, Due, GroupName,
    NewTask, QueueName, Result, Select, Shift, TestClock, Timestamp, async_trait,
};
use delayline_memory::{MemoryBackend, MemoryConfig};
use parking_lot::Mutex;
use tokio::runtime::Builder;

use futures_util::FutureExt as _;

use crate::check::{Summary, check};
use crate::{Harness, Time, Trial};

const CLIENTS: u64 = 6;

/// Its clock is made when it is opened, because it runs on the clock of the test's runtime.
#[derive(Debug)]
struct Memory(Time, Mutex<Option<Arc<TestClock>>>);

impl Memory {
    fn clock(&self) -> Arc<TestClock> {
        let fresh = || Arc::new(TestClock::at(Timestamp::from_unix_millis(1_900_000_000_000)));
        self.1.lock().get_or_insert_with(fresh).clone()
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        Ok(Arc::new(MemoryBackend::with_config(MemoryConfig::default().clock(self.clock()))))
    }

    fn time(&self) -> Time {
        self.0
    }

    fn wall(&self) -> Timestamp {
        self.clock().wall()
    }
}

/// One client: schedules, claims, settles, extends, changes; drops some of its calls.
async fn work(t: Arc<Trial>, queue: QueueName, client: u64) {
    let backend = t.backend();
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut rng = t.rng();
    let mut rng = (0..=client).fold(rng.fork(), |_, _| rng.fork());
    let mut held: Vec<ClaimedTask> = Vec::new();
    for _ in 0..150 {
        let ms = Duration::from_millis(rng.u64(0..12));
        match rng.u32(0..11) {
            0..3 => {
                let tasks = (0..rng.usize(1..6)).map(|_| task(&t, &mut rng)).collect();
                backend.schedule(&queue, tasks).await.map(drop).unwrap_or_default();
            }
            3..6 => {
                let claim = Claim::new(rng.usize(1..8), ms + Duration::from_millis(1));
                if client == 0 && rng.u32(0..4) == 0 {
                    // Dropped half-way, if it takes more than one go.
                    let _ = subscription.claim(claim).now_or_never();
                } else {
                    held.extend(subscription.claim(claim).await.unwrap().deliveries);
                }
            }
            6..9 if !held.is_empty() => {
                let lease = held.swap_remove(rng.usize(0..held.len())).lease;
                let disposition = match rng.u32(0..6) {
                    0 => Disposition::Retry { after: ms, reason: "again".into() },
                    1 => Disposition::Snooze { after: ms },
                    2 => Disposition::DeadLetter { reason: "never".into() },
                    3 => Disposition::Release,
                    _ => Disposition::Complete,
                };
                backend.settle(&queue, vec![(lease, disposition)]).await.unwrap();
            }
            9 if !held.is_empty() => {
                let leases = held.iter().take(3).map(|task| task.lease.clone()).collect();
                backend.extend(&queue, leases, ms * 3 + Duration::from_millis(1)).await.unwrap();
            }
            10 => change(&t, &backend, &queue, &mut rng, ms).await,
            _ => tokio::time::sleep(ms).await,
        }
    }
}

fn task(t: &Trial, rng: &mut fastrand::Rng) -> NewTask {
    let due = match rng.u32(0..3) {
        0 => Due::NOW,
        1 => Due::At(t.wall().saturating_add(Duration::from_millis(rng.u64(0..20)))),
        _ => Due::After(Duration::from_millis(rng.u64(0..20))),
    };
    let task = NewTask::new(due, format!("{}", rng.u32(..)));
    match rng.u32(0..4) {
        0 => task,
        1 => task.group(GroupName::new("g").unwrap()),
        2 => task.id(t.id(format!("k{}", rng.u32(0..20)))),
        _ => task.id(t.id(format!("k{}", rng.u32(0..20)))).replace(),
    }
}

async fn change(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName, rng: &mut fastrand::Rng, by: Duration) {
    let select = match rng.u32(0..3) {
        0 => Select::Group(GroupName::new("g").unwrap()),
        _ => Select::Tasks(vec![t.id(format!("k{}", rng.u32(0..20))).into()]),
    };
    let change = match rng.u32(0..5) {
        0 => Change::cancel(),
        1 => Change::move_to(by),
        2 => Change::shift(Shift::Later(by)),
        3 => Change::shift(Shift::Sooner(by)),
        _ => {
            let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
            drop(backend.dead_letters(queue, redrive).await.unwrap());
            return;
        }
    };
    drop(backend.change(queue, select, change).await.unwrap());
}

fn checked(time: Time, seed: u64) -> Summary {
    let runtime = match time {
        Time::Virtual => Builder::new_current_thread().enable_all().start_paused(true).build(),
        Time::Real => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let trial = runtime.unwrap().block_on(async {
        let trial = Arc::new(Trial::begin("real", seed, Arc::new(Memory(time, Mutex::default()))).await.unwrap());
        let queue = trial.queue("mixed");
        let clients = (0..CLIENTS).map(|client| tokio::spawn(work(trial.clone(), queue.clone(), client)));
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        // What is left comes when its lease ends.
        tokio::time::sleep(Duration::from_millis(200)).await;
        take_the_rest(&trial, &queue).await;
        trial
    });
    let findings = check(&trial.history().recording(trial.name(), seed, trial.caps()));
    assert_eq!(findings.violations, vec![], "seed {seed}");
    findings.summary
}

async fn take_the_rest(trial: &Trial, queue: &QueueName) {
    let backend = trial.backend();
    let mut subscription = trial.subscribe(&backend, queue).await;
    loop {
        let claimed = subscription.claim(Claim::new(100, Duration::from_secs(60))).await.unwrap();
        trial.complete(&backend, queue, &claimed.deliveries).await;
        match claimed.next_due_in {
            _ if !claimed.deliveries.is_empty() => {}
            Some(until) => subscription.wait(until).await,
            None => break,
        }
    }
    // Long after all were due, so that those are looked for.
    tokio::time::sleep(Duration::from_millis(50)).await;
    trial.claim(&mut subscription, 1).await;
    trial.history().drained(queue);
}

#[test]
fn the_memory_backend_at_work_shows_nothing() {
    let virtual_time: Vec<Summary> = (0..10).map(|seed| checked(Time::Virtual, seed)).collect();
    let deliveries: usize = virtual_time.iter().map(|summary| summary.deliveries).sum();
    let again: usize = virtual_time.iter().map(|summary| summary.redeliveries).sum();
    assert!(deliveries > 2_000 && again > 500, "{virtual_time:#?}");
}

#[test]
fn the_memory_backend_on_two_threads_shows_nothing() {
    for seed in 0..3 {
        let summary = checked(Time::Real, seed);
        assert!(summary.deliveries > 100 && summary.ordered > 10 && summary.sought > 100, "{summary}");
    }
}
