//! What only Redis can do to the backend: foreign data, a full server, answers that are lost.

use delayline_conformance::proxy::Link;
use delayline_conformance::servers::Server;
use delayline_core::{
    AdminOp, Attempts, Change, ChangeOutcome, Claim, Claimed, DeadLetterOp, DeadLetterSelect, DelayBackend,
    Disposition, Due, ErrorKind, GroupName, NewTask, OperationId, Page, QueueName, ScheduleOutcome, Select,
    Subscription, SubscriptionOptions, TaskId, TaskView,
};

use super::*;
use crate::RedisBackend;

const LEASE: Duration = Duration::from_secs(30);
const TAG: &str = "{delayline:exam:0}";

fn queue() -> QueueName {
    QueueName::new("exam").unwrap()
}

fn id(key: &str) -> TaskId {
    TaskId::new(key).unwrap()
}

async fn backend(url: &str) -> RedisBackend {
    RedisBackend::connect(config(url).key_prefix("delayline")).await.unwrap()
}

async fn subscribe(backend: &RedisBackend) -> Box<dyn Subscription> {
    backend.subscribe(&queue(), SubscriptionOptions::default()).await.unwrap()
}

async fn put(backend: &RedisBackend, task: NewTask) -> delayline_core::Result<ScheduleOutcome> {
    match backend.schedule(&queue(), vec![task]).await?.remove(0) {
        Ok(scheduled) => Ok(scheduled.outcome),
        Err(e) => Err(e),
    }
}

async fn claim(subscription: &mut Box<dyn Subscription>) -> Claimed {
    subscription.claim(Claim::new(100, LEASE)).await.unwrap()
}

async fn settle(
    backend: &RedisBackend,
    claimed: Claimed,
    disposition: &Disposition,
) -> Vec<delayline_core::Result<()>> {
    let dispositions = claimed.deliveries.into_iter().map(|task| (task.lease, disposition.clone())).collect();
    backend.settle(&queue(), dispositions).await.unwrap()
}

/// All tasks, by pages of so many.
async fn list(backend: &RedisBackend, limit: usize) -> Vec<TaskView> {
    let mut listed = Vec::new();
    let mut page = Page::first(limit);
    loop {
        let views = backend.list(&queue(), page).await.unwrap();
        let Some(last) = views.last() else { return listed };
        page = Page::after(last, limit);
        listed.extend(views);
    }
}

fn keys(server: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = server.ask("KEYS *").unwrap().lines().map(ToString::to_string).collect();
    keys.sort();
    keys
}

fn kind<T: std::fmt::Debug>(result: delayline_core::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn leak_9_no_key_is_left_of_work_that_is_done() {
    let server = server(&[]).await;
    let backend = backend(&server.url()).await;
    let before = keys(&server);
    let mut subscription = subscribe(&backend).await;
    let room = GroupName::new("room").unwrap();
    let tasks: Vec<NewTask> = (0..40)
        .map(|i| NewTask::new(Due::NOW, vec![7; 100 * i]).group(room.clone()).attempts_max(Attempts::new(2).unwrap()))
        .collect();
    backend.schedule(&queue(), tasks).await.unwrap();
    for disposition in [
        Disposition::Release,
        Disposition::Retry { after: Duration::ZERO, reason: "no".into() },
        Disposition::DeadLetter { reason: "never".into() },
    ] {
        let claimed = claim(&mut subscription).await;
        assert_eq!(claimed.deliveries.len(), 40);
        assert!(settle(&backend, claimed, &disposition).await.iter().all(Result::is_ok));
    }
    let redriven = backend
        .dead_letters(&queue(), DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None })
        .await
        .unwrap();
    assert_eq!((redriven.affected, redriven.kept), (40, 0));
    let claimed = claim(&mut subscription).await;
    assert!(claimed.deliveries.iter().enumerate().all(|(i, task)| task.payload == vec![7; 100 * i]));
    settle(&backend, claimed, &Disposition::Complete).await;
    subscription.close().await.unwrap();
    assert_eq!(keys(&server), before);

    // A group that was never there, and one that is cancelled.
    backend.change(&queue(), Select::Group(room.clone()), Change::cancel()).await.unwrap();
    assert_eq!(keys(&server), before);
    put(&backend, NewTask::new(LEASE, vec![7; 5_000]).group(room.clone())).await.unwrap();
    backend.change(&queue(), Select::Group(room), Change::cancel()).await.unwrap();
    assert_eq!(keys(&server), before);
    backend.administer(&queue(), AdminOp::Pause).await.unwrap();
    backend.administer(&queue(), AdminOp::Resume).await.unwrap();
    assert_eq!(keys(&server), before);
    backend.close().await.unwrap();
}

#[tokio::test]
async fn bound_5_a_full_server_refuses_what_is_new_and_can_be_emptied() {
    let server = server(&[]).await;
    let backend = backend(&server.url()).await;
    let mut subscription = subscribe(&backend).await;
    for key in ["a", "b", "c", "d"] {
        put(&backend, NewTask::new(Due::NOW, vec![7; 3_000]).id(id(key))).await.unwrap();
    }
    server.ask("CONFIG SET maxmemory 1mb").unwrap();
    let mixed = vec![
        NewTask::new(Due::NOW, "new"),
        NewTask::new(Due::NOW, "there").id(id("a")),
        NewTask::new(Due::NOW, "instead").id(id("b")).replace(),
        NewTask::new(Due::NOW, "twice").id(id("new")),
        NewTask::new(Due::NOW, "twice").id(id("new")),
    ];
    let answers = backend.schedule(&queue(), mixed).await.unwrap();
    let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.map(|s| s.outcome).map_err(|e| e.kind())).collect();
    let full = Err(ErrorKind::Full);
    assert_eq!(outcomes, [full, Ok(ScheduleOutcome::Existing), Ok(ScheduleOutcome::Replaced), full, full]);
    assert_eq!(kind(put(&backend, NewTask::new(Due::NOW, "new")).await), ErrorKind::Full);

    let changed = backend.change(&queue(), Select::Tasks(vec![id("d").into()]), Change::cancel()).await.unwrap();
    assert_eq!(changed.changed, 1);
    let claimed = claim(&mut subscription).await;
    assert_eq!(claimed.deliveries.len(), 3, "what is there can be worked off");
    let leases = claimed.deliveries.iter().map(|task| task.lease.clone()).collect();
    assert!(backend.extend(&queue(), leases, LEASE * 2).await.unwrap().iter().all(Result::is_ok));
    let released = settle(&backend, claimed, &Disposition::Retry { after: Duration::ZERO, reason: "no".into() }).await;
    assert!(released.iter().all(Result::is_ok), "{released:?}");
    let dead_lettered =
        settle(&backend, claim(&mut subscription).await, &Disposition::DeadLetter { reason: "no".into() }).await;
    assert!(dead_lettered.iter().all(Result::is_ok), "{dead_lettered:?}");
    let kept = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None };
    let kept = backend.dead_letters(&queue(), kept).await.unwrap();
    assert_eq!((kept.affected, kept.kept), (0, 3), "they stay dead letters");
    backend.dead_letters(&queue(), DeadLetterOp::Purge { select: DeadLetterSelect::All }).await.unwrap();
    assert_eq!(kind(put(&backend, NewTask::new(Due::NOW, "new")).await), ErrorKind::Full);
    subscription.close().await.unwrap();
    assert_eq!(keys(&server), [""; 0], "nothing half done is left");
    server.ask("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(put(&backend, NewTask::new(Due::NOW, "new")).await.unwrap(), ScheduleOutcome::Created);
}

#[tokio::test]
async fn foreign_entries_are_quarantined_and_the_queue_goes_on() {
    let server = server(&[]).await;
    let backend = backend(&server.url()).await;
    let mut subscription = subscribe(&backend).await;
    for i in 0..5 {
        put(&backend, NewTask::new(Due::NOW, vec![i; 2_000 * usize::from(i % 2)]).id(id(&format!("task-{i}"))))
            .await
            .unwrap();
    }
    server.ask(&format!("ZADD {TAG}:v 1 x 2 a-foreign-member 3 a-foreign-member-with-a-record")).unwrap();
    server.ask(&format!("HSET {TAG}:t member-with-a-record-of-its-own foreign")).unwrap();
    server.ask(&format!("HSET {TAG}:t ktask-0 Zforeign")).unwrap();
    // The headers end beyond the record: the script does not see it.
    let torn = r#""P\x00\x00\x00\x00\x00\x00\x01\x00\x03\xff\x00\x00""#;
    server.ask(&format!(r#"HSET {TAG}:t ktorn {torn}"#)).unwrap();
    server.ask(&format!(r#"ZADD {TAG}:v 4 "\x00\x00\x00\x00\x00\x00\x01ktorn""#)).unwrap();
    let claimed = claim(&mut subscription).await;
    let came: Vec<String> = claimed.deliveries.iter().map(|task| task.lease.id.to_string()).collect();
    assert_eq!(came, ["task-1", "task-2", "task-3", "task-4"]);
    assert_eq!(claimed.quarantined, 5);
    let stats = backend.stats(&queue()).await.unwrap();
    assert_eq!((stats.quarantined, stats.in_flight, stats.due), (5, 4, 0));
    assert_eq!(server.ask(&format!("LLEN {TAG}:x")).unwrap(), "5");
    settle(&backend, claimed, &Disposition::Complete).await;
    // The id of what was corrupt is free again.
    assert_eq!(put(&backend, NewTask::new(Due::NOW, "new").id(id("task-0"))).await.unwrap(), ScheduleOutcome::Created);
    // An id that nothing leads to any more.
    server.ask(&format!("DEL {TAG}:v")).unwrap();
    assert_eq!(
        put(&backend, NewTask::new(Due::NOW, "newer").id(id("task-0"))).await.unwrap(),
        ScheduleOutcome::Created
    );
    assert_eq!(claim(&mut subscription).await.deliveries[0].payload, "newer");
    backend.administer(&queue(), AdminOp::Delete).await.unwrap();
    assert_eq!(backend.stats(&queue()).await.unwrap().quarantined, 0);
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_nothing_is_half_done() {
    let server = server(&[]).await;
    let backend = backend(&server.url()).await;
    let mut subscription = subscribe(&backend).await;
    let room = GroupName::new("room").unwrap();
    for (key, foreign) in [("v", "SET"), ("t", "SET"), ("a", "SET"), ("g", "SET"), ("m", "SET"), ("p", "SET")] {
        server.ask(&format!("{foreign} {TAG}:{key} theirs")).unwrap();
        let before = keys(&server);
        let e = put(&backend, NewTask::new(LEASE, vec![7; 5_000]).group(room.clone()).id(id("one")).replace()).await;
        if key == "a" {
            // A task that was never claimed has no life, and none is looked for.
            e.unwrap();
            let changed = backend.change(&queue(), Select::Tasks(vec![id("one").into()]), Change::cancel()).await;
            assert!(changed.unwrap_err().message().contains(&format!("{TAG}:a")));
            server.ask(&format!("DEL {TAG}:a")).unwrap();
            backend.administer(&queue(), AdminOp::Delete).await.unwrap();
            continue;
        }
        let e = e.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{key}: {e}");
        assert!(e.message().contains(&format!("{TAG}:{key} holds a string")), "{e}");
        assert_eq!(keys(&server), before, "{key}");
        server.ask(&format!("DEL {TAG}:{key}")).unwrap();
    }
    put(&backend, NewTask::new(Due::NOW, "x")).await.unwrap();
    let lease = claim(&mut subscription).await.deliveries[0].lease.clone();
    server.ask(&format!("SET {TAG}:d theirs")).unwrap();
    let e = backend
        .settle(&queue(), vec![(lease.clone(), Disposition::DeadLetter { reason: "no".into() })])
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    server.ask(&format!("DEL {TAG}:d")).unwrap();
    backend.settle(&queue(), vec![(lease, Disposition::Complete)]).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_found_by_the_next_one() {
    let server = server(&[]).await;
    let (proxy, url) = proxied(&server).await;
    let backend = backend(&url).await;
    let mut subscription = subscribe(&backend).await;
    // So that the server knows the script, and it is not that answer which is lost.
    claim(&mut subscription).await;
    for i in 0..3 {
        put(&backend, NewTask::new(Due::NOW, vec![i])).await.unwrap();
    }
    proxy.set(Link::NO_ANSWERS);
    assert_eq!(kind(subscription.claim(Claim::new(2, LEASE)).await), ErrorKind::Ambiguous);
    assert_eq!(server.ask(&format!("HLEN {TAG}:a")).unwrap(), "2", "they were taken");
    proxy.reset();
    proxy.set(Link::GOOD);
    let claimed = claim(&mut subscription).await;
    let came: Vec<_> = claimed.deliveries.iter().map(|task| (task.payload[0], task.lease.attempt)).collect();
    assert_eq!(came, [(0, 1), (1, 1), (2, 1)], "in order, and no attempt was counted for nobody");
    settle(&backend, claimed, &Disposition::Complete).await;

    // A subscription that is closed with such a claim gives it back.
    put(&backend, NewTask::new(Due::NOW, "last")).await.unwrap();
    proxy.set(Link::NO_ANSWERS);
    assert_eq!(kind(subscription.claim(Claim::new(2, LEASE)).await), ErrorKind::Ambiguous);
    proxy.reset();
    proxy.set(Link::GOOD);
    subscription.close().await.unwrap();
    let mut other = self::subscribe(&backend).await;
    assert_eq!(claim(&mut other).await.deliveries[0].lease.attempt, 1);
}

#[tokio::test]
async fn an_operation_goes_on_under_its_id_in_another_process() {
    let server = server(&[]).await;
    let (one, two) = (backend(&server.url()).await, backend(&server.url()).await);
    let room = GroupName::new("room").unwrap();
    let tasks = (0..1_200).map(|_| NewTask::new(LEASE, "x").group(room.clone())).collect();
    one.schedule(&queue(), tasks).await.unwrap();
    let operation = OperationId::random();
    let change = Change::shift(delayline_core::Shift::Later(LEASE)).operation(operation);
    let queue_name = queue();
    let (a, b) = tokio::join!(
        one.change(&queue_name, Select::Group(room.clone()), change.clone()),
        two.change(&queue_name, Select::Group(room.clone()), change.clone()),
    );
    assert_eq!((a.unwrap().changed, b.unwrap().changed), (1_200, 1_200), "both answer for the whole");
    let first = one.list(&queue(), Page::first(1)).await.unwrap().remove(0);
    let shifted = first.visible_at.saturating_since(first.task.due_at.unwrap()) + LEASE;
    assert!(shifted <= LEASE, "each was shifted once");
    let other = QueueName::new("other").unwrap();
    assert_eq!(kind(one.change(&other, Select::Group(room), change).await), ErrorKind::Invalid);
    let cancel = Change::cancel();
    let gone = one.change(&queue(), Select::Tasks(vec![id("nobody").into()]), cancel).await.unwrap();
    assert!(matches!(gone.outcomes[..], [Ok(ChangeOutcome::NotFound)]));
}

#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let server = server(&[]).await;
    let one = backend(&server.url()).await;
    put(&one, NewTask::new(LEASE, "x")).await.unwrap();
    let four = RedisBackend::connect(config(&server.url()).shards(4)).await.unwrap();
    let mut subscription = subscribe(&four).await;
    let e = subscription.claim(Claim::new(1, LEASE)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("created with `shards=1`, but `shards` is 4"), "{e}");
}

/// Two shards count each for itself, and so may give one number at one millisecond.
#[tokio::test]
async fn clear_9_equal_places_in_two_shards_are_listed_once_across_pages() {
    let server = server(&[]).await;
    let config = config(&server.url()).key_prefix("delayline").shards(3);
    let backend = RedisBackend::connect(config).await.unwrap();
    for shard in 0..3 {
        // Far ahead of the clock, so that the next numbers are these.
        server.ask(&format!("HSET {{delayline:exam:{shard}}}:m c 8000000000000000 n 1.3")).unwrap();
    }
    let due = Due::At(delayline_core::Timestamp::from_unix_millis(4_000_000_000_000 / 2));
    let tasks = (0..30).map(|i| NewTask::new(due, "x").id(id(&format!("task-{i}")))).collect();
    let mut put: Vec<_> =
        backend.schedule(&queue(), tasks).await.unwrap().into_iter().map(|s| s.unwrap().task).collect();
    let seqs: std::collections::BTreeSet<u64> = put.iter().map(|task| task.receipt.words().unwrap()[1]).collect();
    assert!(seqs.len() < 30, "none of the shards gave a number that another gave");
    for limit in [1, 2, 7, 1_000] {
        let mut sorted: Vec<_> = list(&backend, limit).await.into_iter().map(|view| view.task).collect();
        sorted.sort_by_key(|task| task.id.to_string());
        put.sort_by_key(|task| task.id.to_string());
        assert_eq!(sorted, put, "by pages of {limit}");
    }
    // What was noted of a task names it, whatever its shard.
    let changed = backend.change(&queue(), Select::Tasks(put), Change::cancel()).await.unwrap();
    assert_eq!(changed.changed, 30);
}

#[tokio::test]
async fn loss_8_a_redrive_at_a_rate_goes_by_age_across_shards() {
    let server = server(&[]).await;
    let config = config(&server.url()).key_prefix("delayline").shards(3);
    let backend = RedisBackend::connect(config).await.unwrap();
    let mut subscription = subscribe(&backend).await;
    let ids: Vec<String> = (0..20).map(|i| format!("task-{i}")).collect();
    for key in &ids {
        put(&backend, NewTask::new(Due::NOW, "x").id(id(key))).await.unwrap();
        let dead_lettered =
            settle(&backend, claim(&mut subscription).await, &Disposition::DeadLetter { reason: "no".into() }).await;
        assert!(dead_lettered.iter().all(Result::is_ok), "{dead_lettered:?}");
    }
    // One of them leaves its turn empty.
    put(&backend, NewTask::new(LEASE * 100, "in use").id(id("task-5"))).await.unwrap();
    let redrive = DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: Some(0.5) };
    let answer = backend.dead_letters(&queue(), redrive).await.unwrap();
    assert_eq!((answer.affected, answer.kept), (19, 1));
    let listed = list(&backend, 100).await;
    let first = listed[0].visible_at;
    let turns: Vec<_> = listed[..19].iter().map(|view| (view.task.id.to_string(), view.visible_at)).collect();
    let expected = ids.iter().enumerate().filter(|(i, _)| *i != 5);
    for ((key, at), (i, id)) in turns.iter().zip(expected) {
        let after = at.saturating_since(first);
        let even = Duration::from_secs(2) * i as u32;
        assert!(
            key == id && after.abs_diff(even) <= Duration::from_millis(1),
            "{key} after {after:?}, {id} after {even:?}"
        );
    }
}
