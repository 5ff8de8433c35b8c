//! Every name that is allowed, as queue, id and group, also where it looks like something that a store has a use for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use delayline_core::{
    AdminOp, Bytes, Change, ChangeOutcome, DelayBackend, Due, ErrorKind, GroupName, NewTask, Queue, QueueName,
    ScheduleOutcome, Select, TaskId, TaskRef, limits,
};

use crate::need::Need;
use crate::trial::Trial;

pub async fn bound_1_every_allowed_id_is_a_task_of_its_own(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("ids"));
    let keys = odd_texts(limits::TASK_ID_BYTES_MAX);
    let task = |key: &String| NewTask::new(t.units(3), key.clone()).id(TaskId::new(key).unwrap());
    let scheduled = t.put_all(&backend, &queue, keys.iter().map(task)).await;
    for (key, one) in keys.iter().zip(&scheduled) {
        assert_eq!((one.id().to_text(), one.outcome), (key.into(), ScheduleOutcome::Created));
    }
    if Need::Inspect.is_met(t.caps()) {
        for key in &keys {
            let id = TaskId::new(key).unwrap();
            let found = backend.find(&queue, &id).await.unwrap().unwrap_or_else(|| panic!("no task {key:?} is found"));
            assert_eq!((found.task.id, found.payload), (id, Bytes::from(key.clone())));
        }
    }
    if Need::UniqueIds.is_met(t.caps()) {
        for one in t.put_all(&backend, &queue, keys.iter().map(task)).await {
            assert_eq!(one.outcome, ScheduleOutcome::Existing, "{:?} was scheduled again", one.id());
        }
    }
    let taken = t.drain(&backend, &queue, keys.len()).await;
    let mut came = BTreeSet::new();
    for task in &taken {
        let key = task.lease.id.to_text().into_owned();
        assert_eq!(task.payload, key.as_bytes(), "task {key:?} came with the payload of another");
        assert!(came.insert(key), "task {:?} came twice", task.lease.id);
    }
    assert_eq!(came, keys);
}

pub async fn bound_1_a_change_meets_exactly_the_id_it_names(t: &Trial) {
    let backend = t.backend();
    let keys = odd_texts(limits::TASK_ID_BYTES_MAX);
    let task = |key: &String| NewTask::new(Due::NOW, key.clone()).id(TaskId::new(key).unwrap());
    for (round, is_meant) in rounds(keys.len()).enumerate() {
        // A queue for each, as ids may be remembered for a while after their tasks are done.
        let queue = t.queue(&format!("ids-{round}"));
        let scheduled = t.put_all(&backend, &queue, keys.iter().map(task)).await;
        let gone: Vec<TaskRef> =
            scheduled.iter().zip(0..).filter(|(_, i)| is_meant(*i)).map(|(one, _)| one.into()).collect();
        for some in gone.chunks(t.caps().batch_max) {
            let changed = backend.change(&queue, Select::Tasks(some.to_vec()), Change::cancel()).await.unwrap();
            let wrong = changed.outcomes.iter().zip(some).find(|(one, _)| !matches!(one, Ok(ChangeOutcome::Changed)));
            assert!(wrong.is_none(), "a task that was there could not be cancelled: {wrong:?}");
        }
        let left: BTreeSet<String> =
            keys.iter().zip(0..).filter(|(_, i)| !is_meant(*i)).map(|(key, _)| key.clone()).collect();
        let taken = t.drain(&backend, &queue, left.len()).await;
        assert_eq!(taken.iter().map(|task| task.lease.id.to_string()).collect::<BTreeSet<_>>(), left);
    }
}

pub async fn bound_1_every_allowed_group_is_a_group_of_its_own(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("groups"));
    let names = odd_texts(limits::GROUP_NAME_BYTES_MAX);
    let members = |name: &String| vec![NewTask::new(Due::NOW, name.clone()).group(GroupName::new(name).unwrap()); 2];
    for is_meant in rounds(names.len()) {
        t.put_all(&backend, &queue, names.iter().flat_map(members)).await;
        for (name, _) in names.iter().zip(0..).filter(|(_, i)| is_meant(*i)) {
            let group = Select::Group(GroupName::new(name).unwrap());
            let changed = backend.change(&queue, group, Change::cancel()).await.unwrap();
            assert_eq!((changed.changed, changed.not_found), (2, 0), "group {name:?}: {changed:?}");
        }
        let left: BTreeSet<&String> =
            names.iter().zip(0..).filter(|(_, i)| !is_meant(*i)).map(|(name, _)| name).collect();
        let taken = t.drain(&backend, &queue, 2 * left.len()).await;
        assert_eq!(taken.len(), 2 * left.len());
        for task in &taken {
            let group = task.group.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(left.contains(&group) && task.payload == group.as_bytes(), "a task of group {group:?} came");
        }
    }
}

pub async fn bound_1_every_allowed_queue_name_is_a_queue_of_its_own(t: &Trial) {
    let backend = t.backend();
    let names = queue_names(t);
    let deletes = Need::Delete.is_met(t.caps());
    for is_meant in rounds(names.len()) {
        for (text, name) in &names {
            t.put(&backend, name, NewTask::new(Due::NOW, text.clone())).await;
        }
        assert_listed(t, &backend, names.values()).await;
        let deleted = |i: usize| deletes && is_meant(i);
        for (name, _) in names.values().zip(0..).filter(|(_, i)| deleted(*i)) {
            backend.administer(name, AdminOp::Delete).await.unwrap();
        }
        for ((text, name), i) in names.iter().zip(0..) {
            let expected: Vec<&[u8]> = if deleted(i) { vec![] } else { vec![text.as_bytes()] };
            let taken = t.drain(&backend, name, expected.len()).await;
            assert_eq!(taken.iter().map(|task| &task.payload[..]).collect::<Vec<_>>(), expected, "queue {name}");
        }
        if !deletes {
            return;
        }
    }
}

pub async fn bound_1_what_is_no_name_is_refused_before_anything_is_sent(t: &Trial) {
    let backend = t.backend();
    let over = |bytes: usize| "x".repeat(bytes + 1);
    let long = over(limits::QUEUE_NAME_BYTES_MAX);
    for (bad, kind) in [
        ("", ErrorKind::Invalid),
        ("a b", ErrorKind::Invalid),
        ("a:b", ErrorKind::Invalid),
        ("a/b", ErrorKind::Invalid),
        ("{a}", ErrorKind::Invalid),
        ("a\0", ErrorKind::Invalid),
        ("ä", ErrorKind::Invalid),
        (long.as_str(), ErrorKind::TooLarge),
    ] {
        let refused = Queue::<String>::new(backend.clone(), bad).map(|_| ()).map_err(|e| e.kind());
        assert_eq!(refused, Err(kind), "queue name {bad:?}");
    }
    let queue = Queue::<String>::new(backend.clone(), t.queue("names")).unwrap();
    for bad in ["", "\0", "a\n", "\u{7f}", "\u{85}", "tab\tbed", over(limits::TASK_ID_BYTES_MAX).as_str()] {
        let kind = if bad.len() > limits::TASK_ID_BYTES_MAX { ErrorKind::TooLarge } else { ErrorKind::Invalid };
        let refused = queue.schedule(&"x".into()).id(bad).await.map(|_| ()).map_err(|e| e.kind());
        assert_eq!(refused, Err(kind), "task id {bad:?}");
    }
    for bad in ["", "\0", "a\u{1b}[31m", over(limits::GROUP_NAME_BYTES_MAX).as_str()] {
        let kind = if bad.len() > limits::GROUP_NAME_BYTES_MAX { ErrorKind::TooLarge } else { ErrorKind::Invalid };
        let refused = queue.schedule(&"x".into()).group(bad).await.map(|_| ()).map_err(|e| e.kind());
        assert_eq!(refused, Err(kind), "group name {bad:?}");
    }
    assert!(t.drain(&backend, queue.name(), 0).await.is_empty(), "a task without a valid name was sent");
}

pub async fn bound_6_hundreds_of_queues_are_kept_apart(t: &Trial) {
    let backend = t.backend();
    let queues: Vec<QueueName> = (0..t.size(500, 200)).map(|i| t.queue(&i.to_string())).collect();
    for (i, queue) in queues.iter().enumerate() {
        t.put_all(&backend, queue, (0..3).map(|_| NewTask::new(Due::NOW, i.to_string()))).await;
    }
    for (i, queue) in queues.iter().enumerate() {
        if i % 100 == 0 {
            assert_listed(t, &backend, &queues[i..]).await;
        }
        let taken = t.drain(&backend, queue, 3).await;
        assert_eq!(taken.len(), 3, "queue {i}");
        assert!(taken.iter().all(|task| task.payload == i.to_string().as_bytes()), "queue {i} had another's task");
    }
}

/// Checks that these queues are listed, where queues can be.
async fn assert_listed<'q>(
    t: &Trial,
    backend: &Arc<dyn DelayBackend>,
    queues: impl IntoIterator<Item = &'q QueueName>,
) {
    if Need::Stats.is_met(t.caps()) {
        let there: BTreeSet<QueueName> = backend.queues().await.unwrap().into_iter().collect();
        let missing: Vec<_> = queues.into_iter().filter(|name| !there.contains(name)).collect();
        assert!(missing.is_empty(), "queues that hold tasks and are not listed: {missing:?}");
    }
}

/// For each bit of the numbers below `n`, which of them have it: any two are told apart in some round.
fn rounds(n: usize) -> impl Iterator<Item = impl Fn(usize) -> bool> {
    (0..usize::BITS - n.leading_zeros()).map(|bit| move |i: usize| (i >> bit) & 1 == 1)
}

/// Texts without control characters, of one byte to `bytes_max`, each of which some store might take for another or for
/// something of its own.
fn odd_texts(bytes_max: usize) -> BTreeSet<String> {
    const LOOKALIKES: [&str; 64] = [
        "a",
        "A",
        "a:b",
        "a::b",
        "a:b:",
        ":a",
        "a.b",
        "a..b",
        "a/b",
        "a//b",
        "a\\b",
        "a|b",
        "a,b",
        "a;b",
        "a=b",
        "a&b",
        "a#b",
        "a@b",
        "a+b",
        "a%b",
        "a%%b",
        "%s",
        "%n",
        "%d",
        "%00",
        "%2F",
        "\\0",
        "\\x00",
        "\\n",
        "\\\\",
        "''",
        "\"\"",
        "$1",
        "$$",
        "${a}",
        "#{a}",
        "{a}",
        "{a}:b",
        "{}",
        "[a-z]",
        "a*",
        "a?",
        "../..",
        "./a",
        "~",
        "00",
        "-1",
        "-0",
        "+1",
        "1e3",
        "0x10",
        "null",
        "NULL",
        "nil",
        "true",
        "undefined",
        "'; drop table tasks; --",
        "<a>&amp;",
        "a b",
        "a  b",
        " a",
        "a ",
        "  ",
        "amq.default",
    ];
    const UNICODE: [&str; 24] = [
        "é",
        "e\u{301}",
        "É",
        "ß",
        "ss",
        "İ",
        "i\u{307}",
        "ﬁ",
        "fi",
        "Å",
        "Å",
        "😀",
        "👩\u{200d}👧",
        "שלום",
        "\u{202e}a",
        "\u{200b}",
        "a\u{200b}",
        "\u{feff}a",
        "\u{a0}",
        "\u{2028}",
        "\u{fffd}",
        "\u{e000}",
        "\u{ffff}",
        "\u{10ffff}",
    ];
    const UUIDS: [&str; 8] = [
        "0190f000-0000-7000-8000-0000000000ff",
        "0190F000-0000-7000-8000-0000000000FF",
        "0190f000-0000-7000-8000-0000000000fF",
        "0190f00000007000800000000000000000ff",
        "{0190f000-0000-7000-8000-0000000000ff}",
        "urn:uuid:0190f000-0000-7000-8000-0000000000ff",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ];
    let printable: String = (' '..='~').collect();
    let mut texts: BTreeSet<String> = printable.chars().map(String::from).collect();
    texts.extend(LOOKALIKES.iter().chain(&UNICODE).chain(&UUIDS).map(ToString::to_string));
    // As long as can be: one kind of character only, and alike but for the last.
    for one in ["x", "'", "é", "😀"] {
        texts.insert(one.repeat(bytes_max / one.len()));
        texts.insert(one.repeat(bytes_max / one.len() - 1));
    }
    texts.insert(format!("{}y", "x".repeat(bytes_max - 1)));
    texts.insert(printable);
    texts
}

/// Names made of all that is allowed, sorted. They share the run's tag, so that no two runs share a queue.
fn queue_names(t: &Trial) -> BTreeMap<String, QueueName> {
    let tag = t.tag();
    let mut ends: BTreeSet<String> = ('0'..='9').chain('a'..='z').chain('A'..='Z').map(String::from).collect();
    let all: String = ends.iter().map(String::as_str).collect();
    let alike =
        ["", ".", "..", "-", "--", "_", ".a", "a.", "a.b", "a_b", "a-b", "ab", "AB", "a.b.c", "a.b.", "-a", "0.0"];
    ends.extend(alike.map(String::from));
    ends.insert(format!("{all}._-"));
    let room = limits::QUEUE_NAME_BYTES_MAX - tag.len();
    for last in ["x", "X", ".", "-"] {
        ends.insert(format!("{}{last}", "x".repeat(room - 1)));
    }
    let texts = ends.into_iter().map(|end| format!("{tag}{end}"));
    texts.map(|text| (text.clone(), QueueName::new(text).unwrap())).collect()
}
