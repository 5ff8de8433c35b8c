//! LEAK: when the work is done, nothing is left. These tests look at the heap, and so run alone in their process.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{
    Change, Claim, DelayBackend, Disposition, Due, Error, NewTask, Queue, QueueName, Select, Subscription, Support,
    TaskRef, Worker,
};

use crate::dropping::stage::{empty, quiet};
use crate::dropping::{CountedWaker, Yielding, turns};
use crate::heap::{self, Alive, Slack};
use crate::trial::{LONG_LEASE, Trial};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const TICK: Duration = Duration::from_millis(1);

/// What 40 more cycles may leave: less than one block each, and room for what the runtime keeps.
const CYCLES_SLACK: Slack = Slack { blocks: 20, bytes: 16 * 1024 };

/// Without the counting allocator, a test of the heap would pass whatever is left there.
fn look_at_the_heap(t: &Trial) {
    if !heap::is_counting() {
        t.untested("the counting allocator is not this process's; see `leak_suite!`");
    }
}

/// The case that killed a service overnight: 30,000 delayed tasks through blocking takes, each of which left a listener
/// behind (Redisson 3.10.6, redisson#2055).
pub async fn leak_2_thirty_thousand_tasks_leave_nothing(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("exam"));
    let round = async |tasks: usize| {
        let mut subscription = t.subscribe(&backend, &queue).await;
        let exams = (0..tasks).map(|i| NewTask::new(Duration::from_millis(i as u64 % 400), format!("candidate {i}")));
        t.put_all(&backend, &queue, exams).await;
        for _ in 0..tasks {
            let one = t.take(&mut subscription, 1).await;
            t.complete(&backend, &queue, &one).await;
        }
        t.checked(tasks as u64);
    };
    // What is allocated once is there after a first round.
    round(1_000).await;
    let before = Alive::settled(t).await;
    round(30_000).await;
    Alive::assert_back_soon(t, &before, Slack::default(), "30,000 tasks, each by a take of its own").await;
}

pub async fn leak_2_a_burst_gives_its_memory_back(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("herd"));
    let round = async |tasks: usize| {
        let herd = (0..tasks).map(|i| NewTask::new(Due::NOW, format!("candidate {i}").repeat(20)));
        t.put_all(&backend, &queue, herd).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        // All of them are in flight at once.
        let taken = t.take(&mut subscription, tasks).await;
        assert_eq!(taken.len(), tasks);
        t.complete(&backend, &queue, &taken).await;
        t.checked(tasks as u64);
    };
    round(1_000).await;
    let before = Alive::settled(t).await;
    for _ in 0..3 {
        round(t.size(50_000, 10_000)).await;
        Alive::assert_back_soon(t, &before, Slack::default(), "a burst").await;
    }
}

pub async fn leak_3_takes_that_time_out_or_are_dropped_leave_nothing(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("vain"));
    // So that there is something in sight to wait for.
    t.put(&backend, &queue, NewTask::new(DAY, "far")).await;
    let typed = Queue::<String>::new(backend.clone(), queue.clone()).expect("a queue of a valid name");
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut consumer = typed.consumer().open().await.expect("a consumer");
    let waker = Arc::new(CountedWaker::default());
    let takes = t.size(100_000, 1_000);

    // What is opened on a server with the first claim stays there as long as the subscription.
    timed_out(t, &mut subscription, 1).await;
    assert!(consumer.next_within(TICK).await.expect("an answer").is_none());
    // A first round of each, for what is allocated once.
    for n in [100, takes] {
        let before = Alive::settled(t).await;
        timed_out(t, &mut subscription, n).await;
        left_nothing(t, &before, &waker, n, "takes that timed out").await;

        dropped(t, &mut subscription, &waker, n).await;
        left_nothing(t, &before, &waker, n, "takes that were dropped").await;

        for _ in 0..n {
            assert!(consumer.next_within(TICK).await.expect("an answer").is_none());
        }
        left_nothing(t, &before, &waker, n, "takes by a consumer that timed out").await;

        for i in 0..n {
            let mut next = Box::pin(consumer.next());
            assert!(waker.poll(next.as_mut()).is_pending());
            drop(next);
            breathe(i).await;
        }
        left_nothing(t, &before, &waker, n, "takes by a consumer that were dropped").await;
    }
    t.checked(4 * takes as u64);
}

async fn timed_out(t: &Trial, subscription: &mut Box<dyn Subscription>, takes: usize) {
    for _ in 0..takes {
        assert!(t.claim(subscription, 1).await.is_empty());
        subscription.wait(TICK).await;
    }
}

/// Claims and waits that are given up as soon as they are pending.
async fn dropped(t: &Trial, subscription: &mut Box<dyn Subscription>, waker: &Arc<CountedWaker>, takes: usize) {
    for i in 0..takes {
        let claim = Claim::new(1, LONG_LEASE.min(t.caps().lease_max));
        // One that is answered at once can't be dropped.
        let _ = waker.poll(pin!(subscription.claim(claim)).as_mut());
        let mut wait = subscription.wait(HOUR);
        let _ = waker.poll(Pin::new(&mut wait));
        drop(wait);
        breathe(i).await;
    }
}

/// What a backend does in the background for a call that was dropped gets its turn, so that it does not pile up.
async fn breathe(i: usize) {
    if i.is_multiple_of(50) {
        turns(5).await;
    }
}

async fn left_nothing(t: &Trial, before: &Alive, waker: &Arc<CountedWaker>, n: usize, what: &str) {
    quiet(t, t.patience(), || waker.kept() == 0).await;
    assert_eq!(waker.kept(), 0, "{n} {what} left their wakers registered");
    Alive::assert_back_soon(t, before, Slack::default(), &format!("{n} {what}")).await;
}

pub async fn leak_5_cycles_cost_the_same_as_one(t: &Trial) {
    look_at_the_heap(t);
    let backend = t.bare();
    cycles(t, "subscriptions", async |i| {
        let mut subscription = t.subscribe(&backend, &t.queue("subscriptions")).await;
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        subscription.wait(TICK).await;
        if i % 2 == 0 {
            subscription.close().await.expect("a subscription that can be closed");
        }
    })
    .await;
    cycles(t, "consumers", async |i| {
        let queue = Queue::<String>::new(backend.clone(), t.queue("consumers")).expect("a queue of a valid name");
        queue.schedule(&"a".into()).await.expect("a task that is accepted");
        let mut consumer = queue.consumer().open().await.expect("a consumer");
        consumer.next().await.expect("the task").complete().await.expect("a lease that can be completed");
        if i % 2 == 0 {
            consumer.close().await.expect("a consumer that can be closed");
        }
    })
    .await;
    cycles(t, "queues, each by another name", async |i| {
        // Ten names in turn, where the first use of a name leaves something.
        let queue = t.queue(&format!("once-{}", if forgets_names(t) { i } else { i % 10 }));
        t.put(&backend, &queue, NewTask::new(Due::NOW, "a")).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        let taken = t.take(&mut subscription, 1).await;
        t.complete(&backend, &queue, &taken).await;
    })
    .await;
    // A worker that is dropped gives back what it just took, or had nothing yet: a client that never did it before may keep
    // something of the first time.
    t.put(&backend, &t.queue("workers"), NewTask::new(Due::NOW, "a")).await;
    let mut subscription = t.subscribe(&backend, &t.queue("workers")).await;
    let taken = t.take(&mut subscription, 1).await;
    let release = vec![(taken[0].lease.clone(), Disposition::Release)];
    backend.settle(&t.queue("workers"), release).await.expect("an answer").remove(0).expect("a task given back");
    empty(t, &backend, &t.queue("workers"), &mut subscription).await;
    subscription.close().await.expect("a subscription that can be closed");
    cycles(t, "workers", async |i| run_worker(&backend, t.queue("workers"), i % 2 == 0).await).await;
    cycles(t, "backends", async |_| use_one_more(t).await).await;
}

/// Whether a queue that holds nothing is gone (LEAK-4): a promise of stores that can tell what queues there are. Others make
/// something for each name, and keep it.
fn forgets_names(t: &Trial) -> bool {
    t.caps().stats == Support::Definite
}

/// Runs something 50 times; the last 40 must have left nothing.
async fn cycles(t: &Trial, what: &str, mut cycle: impl AsyncFnMut(u32)) {
    for i in 0..10 {
        cycle(i).await;
    }
    let after_10 = Alive::settled(t).await;
    for i in 10..50 {
        cycle(i).await;
    }
    Alive::assert_back_soon(t, &after_10, CYCLES_SLACK, &format!("40 cycles of {what}")).await;
    t.checked(50);
}

/// A worker that ends when nothing is left, or one that is dropped in the midst of it.
async fn run_worker(backend: &Arc<dyn DelayBackend>, queue: QueueName, to_the_end: bool) {
    let queue = Queue::<String>::new(backend.clone(), queue).expect("a queue of a valid name");
    queue.schedule(&"a".into()).await.expect("a task that is accepted");
    let run = |until_empty| {
        let handler = |_: String, _| async { Ok::<(), Error>(()) };
        let worker = Worker::builder().queue(&queue, handler).until_empty(until_empty).build().expect("a worker");
        worker.run()
    };
    if !to_the_end {
        // What it does not complete, the next one does.
        let _ = tokio::time::timeout(Duration::from_millis(5), run(false)).await;
    }
    run(true).await.expect("a worker that ends");
}

/// Opens a client, uses it and ends it.
async fn use_one_more(t: &Trial) {
    let backend = t.harness().open().await.expect("another client");
    let queue = t.queue("another");
    t.put(&backend, &queue, NewTask::new(Due::NOW, "a")).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let taken = t.take(&mut subscription, 1).await;
    t.complete(&backend, &queue, &taken).await;
    run_worker(&backend, t.queue("another-worked"), true).await;
    assert!(t.claim(&mut subscription, 1).await.is_empty());
    subscription.wait(TICK).await;
    subscription.close().await.expect("a subscription that can be closed");
    backend.close().await.expect("a client that can be closed");
}

pub async fn leak_6_joined_calls_whose_callers_all_left_leave_nothing(t: &Trial) {
    look_at_the_heap(t);
    let backend: Arc<dyn DelayBackend> = Arc::new(Yielding::over(t.bare(), 3));
    let queue = Queue::<String>::new(backend.clone(), t.queue("left")).expect("a queue of a valid name");
    let waker = Arc::new(CountedWaker::default());
    let payload = "x".repeat(t.caps().payload_bytes_max.min(1_000) - 2);
    let round = async |rounds: u32| {
        for i in 0..rounds {
            let mut calls: Vec<_> = (0..32).map(|_| Box::pin(queue.schedule(&payload).into_future())).collect();
            for call in &mut calls {
                // On several threads, some are answered by now.
                let _ = waker.poll(call.as_mut());
            }
            // They leave before they were sent, while they are out, or when the answer lies there.
            turns(i % 16).await;
        }
        quiet(t, t.patience(), || waker.kept() == 0).await;
        assert_eq!(waker.kept(), 0, "callers that left stay registered");
        let mut subscription = t.subscribe(&backend, queue.name()).await;
        // There may be none: who leaves before it was sent takes its task along.
        empty(t, &backend, queue.name(), &mut subscription).await;
        t.checked(u64::from(rounds));
    };
    round(16).await;
    let before = Alive::settled(t).await;
    round(t.size(500, 200) as u32).await;
    Alive::assert_back_soon(t, &before, Slack::default(), "joined calls whose callers all left").await;
}

pub async fn leak_7_a_cancelled_task_gives_its_payload_back(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("sessions"));
    let payload = "x".repeat(t.caps().payload_bytes_max.min(16 * 1024));
    anchor(t, &backend, &queue).await;
    let round = async |tasks: usize| {
        let far = (0..tasks).map(|i| NewTask::new(DAY + TICK * i as u32, payload.clone()));
        let refs: Vec<TaskRef> = t.put_all(&backend, &queue, far).await.into_iter().map(TaskRef::from).collect();
        for batch in refs.chunks(t.caps().batch_max) {
            let changed = backend.change(&queue, Select::Tasks(batch.to_vec()), Change::cancel()).await;
            assert_eq!(changed.expect("a change").changed, batch.len() as u64);
        }
        t.checked(tasks as u64);
    };
    given_back(t, 1_000 * payload.len(), "tasks cancelled a day before they are due", async || round(1_000).await)
        .await;
}

/// A task that stays, so that what is left of the others is not forgotten together with their queue.
async fn anchor(t: &Trial, backend: &Arc<dyn DelayBackend>, queue: &QueueName) {
    t.put(backend, queue, NewTask::new(DAY, "anchor")).await;
}

/// Does something with so many bytes of payload, five times. It may leave a tenth of them once, as room for the next ones,
/// and that does not grow.
async fn given_back(t: &Trial, bytes: usize, what: &str, mut round: impl AsyncFnMut()) {
    let before = Alive::settled(t).await;
    round().await;
    let once = Alive::settled(t).await;
    let slack = Slack { blocks: 500, bytes: bytes as i64 / 10 };
    once.assert_back(&before, slack, what);
    for _ in 0..4 {
        round().await;
    }
    Alive::assert_back_soon(t, &once, Slack::default(), &format!("four times more {what}")).await;
}

pub async fn leak_7_a_task_cancelled_in_flight_leaves_nothing(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("stopped"));
    let payload = "x".repeat(t.caps().payload_bytes_max.min(4 * 1024));
    anchor(t, &backend, &queue).await;
    let mut subscription = t.subscribe(&backend, &queue).await;
    let mut round = async |tasks: usize| {
        let now = (0..tasks).map(|_| NewTask::new(Due::NOW, payload.clone()));
        let refs: Vec<TaskRef> = t.put_all(&backend, &queue, now).await.into_iter().map(TaskRef::from).collect();
        let taken = t.take(&mut subscription, tasks).await;
        for batch in refs.chunks(t.caps().batch_max) {
            let changed = backend.change(&queue, Select::Tasks(batch.to_vec()), Change::cancel()).await;
            assert_eq!(changed.expect("a change").in_flight, batch.len() as u64);
        }
        t.complete(&backend, &queue, &taken).await;
        // As a consumer does before it sleeps: until then a store may keep a note of what the subscription's last claim took.
        assert!(t.claim(&mut subscription, 1).await.is_empty());
        t.checked(tasks as u64);
    };
    given_back(t, 1_000 * payload.len(), "tasks cancelled in flight", async || round(1_000).await).await;
}

pub async fn leak_7_a_replaced_task_gives_its_payload_back(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("debounced"));
    let payload = "x".repeat(t.caps().payload_bytes_max.min(16 * 1024));
    let again = async |times: usize| {
        for _ in 0..times {
            let task = NewTask::new(DAY, payload.clone()).id(t.id("one")).replace();
            t.put(&backend, &queue, task).await;
        }
        t.checked(times as u64);
    };
    again(10).await;
    given_back(t, 1_000 * payload.len(), "one task replaced 1,000 times", async || again(1_000).await).await;
}

pub async fn leak_7_a_moved_task_keeps_one_place(t: &Trial) {
    look_at_the_heap(t);
    let (backend, queue) = (t.bare(), t.queue("postponed"));
    let payload = "x".repeat(t.caps().payload_bytes_max.min(16 * 1024));
    let far = (0..10).map(|_| NewTask::new(DAY, payload.clone()));
    let refs: Vec<TaskRef> = t.put_all(&backend, &queue, far).await.into_iter().map(TaskRef::from).collect();
    let again = async |times: usize| {
        for i in 0..times {
            let to = DAY + Duration::from_millis(i as u64 * 7_919 % 40_000_000);
            let changed = backend.change(&queue, Select::Tasks(refs.clone()), Change::move_to(to)).await;
            assert_eq!(changed.expect("a change").changed, 10);
        }
        t.checked(times as u64);
    };
    again(10).await;
    given_back(t, 5_000 * payload.len(), "ten tasks moved 500 times", async || again(500).await).await;
}

pub async fn leak_8_nothing_of_a_backend_is_left_after_close(t: &Trial) {
    look_at_the_heap(t);
    // The first one may load what the process keeps: a resolver, a table of certificates.
    use_one_more(t).await;
    if t.is_shared() {
        // The client that stays does here what it does in the end, for what it keeps of it once.
        t.put(&t.bare(), &t.queue("closed"), NewTask::new(Due::NOW, "a")).await;
        empty_closed(t).await;
    }
    let before = Alive::settled(t).await;
    let backend = t.harness().open().await.expect("another client");
    let queue = Queue::<String>::new(backend.clone(), t.queue("closed")).expect("a queue of a valid name");
    let mut consumer = queue.consumer().open().await.expect("a consumer");
    for i in 0..100 {
        queue.schedule(&format!("{i}")).await.expect("a task that is accepted");
    }
    let held = consumer.next().await.expect("a task that is due");
    // With a consumer that waits, a task in flight and tasks that nobody has taken.
    let waiting = tokio::spawn(async move {
        while let Ok(one) = consumer.next().await {
            drop(one.complete().await)
        }
    });
    quiet(t, t.units(5), || false).await;
    backend.close().await.expect("a client that can be closed");
    // It ends, because its backend is closed.
    tokio::time::timeout(t.patience(), waiting).await.expect("a consumer that is told").expect("no panic");
    let (_, held) = held.into_parts();
    let _ = held.complete().await;
    drop((queue, backend));
    if t.is_shared() {
        // What a store of its own still holds is nothing of the client's.
        empty_closed(t).await;
    }
    t.checked(1);
    Alive::assert_back_soon(t, &before, CYCLES_SLACK, "a client that was closed").await;
}

/// Completes what is left in the queue of the client that is closed.
async fn empty_closed(t: &Trial) {
    let mut subscription = t.subscribe(&t.bare(), &t.queue("closed")).await;
    empty(t, &t.bare(), &t.queue("closed"), &mut subscription).await;
}

pub async fn leak_9_a_server_holds_nothing_of_work_that_is_done(t: &Trial) {
    let (backend, queue) = (t.bare(), t.queue("served"));
    if !forgets_names(t) {
        t.put(&backend, &queue, NewTask::new(Due::NOW, "first")).await;
        let mut subscription = t.subscribe(&backend, &queue).await;
        empty(t, &backend, &queue, &mut subscription).await;
        subscription.close().await.expect("a subscription that can be closed");
        use_one_more(t).await;
    }
    let before = Alive::settled(t).await;
    if before.resources.0.is_empty() {
        return t.untested("the harness reports no resources of a server");
    }
    for i in 0..5 {
        let tasks = (0..200).map(|n| NewTask::new(t.units(1) * (n % 3), format!("{i}-{n}")));
        let refs = t.put_all(&backend, &queue, tasks).await;
        if t.caps().cancel == Support::Definite {
            let some = refs[..20].iter().map(TaskRef::from).collect();
            backend.change(&queue, Select::Tasks(some), Change::cancel()).await.expect("a change");
        }
        let mut subscription = t.subscribe(&backend, &queue).await;
        t.checked(empty(t, &backend, &queue, &mut subscription).await.len() as u64);
        subscription.close().await.expect("a subscription that can be closed");
        use_one_more(t).await;
    }
    Alive::assert_nothing_more_soon(t, &before, "work that is done").await;
}
