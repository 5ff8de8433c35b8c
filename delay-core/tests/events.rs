//! What is logged, and what never is.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod support;

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use delayline_core::{Bytes, Codec, ErrorKind, HandlerOutcome, Queue, Raw, Result, RetryPolicy, Worker};
use parking_lot::Mutex;
use support::{DAY, Fault, Probe, SECOND, fill};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, subscriber};

/// Keeps everything as lines of text: `LEVEL name field=value ...`.
#[derive(Clone, Default)]
struct Recorder {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Recorder {
    fn note(&self, meta: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
        let name = if meta.is_span() { meta.name() } else { "" };
        let mut line = Line(format!("{} {name}", meta.level()));
        record(&mut line);
        self.lines.lock().push(line.0);
    }

    /// The lines that hold all of these.
    fn with(&self, wanted: &[&str]) -> Vec<String> {
        let holds_all = |line: &&String| wanted.iter().all(|part| line.contains(part));
        self.lines.lock().iter().filter(holds_all).cloned().collect()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        meta.target().starts_with("delayline_core")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(span.metadata(), |line| span.record(line));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.note(event.metadata(), |line| event.record(line));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn clear_11_an_outage_is_one_warning_and_its_end_one_notice() {
    let recorder = Recorder::default();
    let _guard = subscriber::set_default(recorder.clone());
    let probe = Probe::new();
    let queue = probe.queue("exams");
    let mut consumer = queue.consumer().open().await.unwrap();
    for _ in 0..2 {
        probe.on.claim.plan((0..20).map(|_| Fault::Fail(ErrorKind::Unavailable)));
        assert!(consumer.next_within(200 * SECOND).await.unwrap().is_none());
    }
    let warnings = recorder.with(&["WARN", "exams", "as planned"]);
    assert_eq!((warnings.len(), recorder.with(&["INFO", "works again"]).len()), (2, 2), "{warnings:?}");
    assert_eq!(recorder.with(&["DEBUG", "claiming failed"]).len(), 40);
}

#[tokio::test(start_paused = true)]
async fn clear_4_what_becomes_of_tasks_is_logged_and_never_their_payloads_and_headers() {
    let recorder = Recorder::default();
    let _guard = subscriber::set_default(recorder.clone());
    let queue = Queue::<String>::new(Probe::new(), "exams").unwrap();
    let secret = "hunter2".to_string();
    for id in ["done", "failed", "hopeless", "panicked", "later", "last"] {
        let schedule = queue.schedule(&secret).header("token", "hunter2").id(id);
        schedule.attempts_max(if id == "last" { 1 } else { 9 }).await.unwrap();
    }
    let raw = Queue::<Bytes>::with_codec(queue.backend().clone(), "exams", Raw).unwrap();
    raw.schedule(&Bytes::from("[\"hunter2\"]")).id("unreadable").await.unwrap();
    let worker = Worker::builder().retry(RetryPolicy::fixed(DAY)).queue(&queue, |_, context| async move {
        match &*context.id().to_text() {
            "done" => HandlerOutcome::Complete,
            "later" => HandlerOutcome::Snooze(DAY),
            "hopeless" => HandlerOutcome::dead_letter("hopeless case"),
            "panicked" => panic!("out of paper"),
            _ => HandlerOutcome::retry("no space"),
        }
    });
    let running = tokio::time::timeout(SECOND, worker.build().unwrap().run());
    assert!(running.await.is_err());
    for wanted in [
        ["DEBUG schedule", "queue=exams", ""],
        ["DEBUG claim", "queue=exams", "max=16"],
        ["INFO task", "id=done", "attempt=1"],
        ["DEBUG", "id=done", "completed"],
        ["DEBUG", "id=failed", "no space"],
        ["DEBUG", "id=failed", "retried"],
        ["DEBUG", "id=later", "snoozed"],
        ["WARN", "id=hopeless", "hopeless case"],
        ["WARN", "id=panicked", "out of paper"],
        ["WARN", "id=last", "used up"],
        ["WARN", "id=unreadable", "can't be decoded"],
    ] {
        assert_eq!(recorder.with(&wanted).len().min(1), 1, "{wanted:?} in {:#?}", recorder.lines.lock());
    }
    assert_eq!(recorder.with(&["hunter2"]), Vec::<String>::new());
    assert_eq!(recorder.with(&["token"]), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_a_warning_and_after_an_unknown_outcome_none() {
    let recorder = Recorder::default();
    let _guard = subscriber::set_default(recorder.clone());
    let probe = Probe::new();
    let queue = probe.queue("exams");
    fill(&queue, [7]).await;
    probe.on.settle.plan([Fault::Lost(ErrorKind::Ambiguous)]);
    let worker = || Worker::builder().until_empty(true).queue(&queue, |_, _| tokio::time::sleep(SECOND));
    worker().build().unwrap().run().await.unwrap();
    assert_eq!(
        (recorder.with(&["WARN"]).len(), recorder.with(&["DEBUG", "outcome of the settling unknown"]).len()),
        (0, 1)
    );

    fill(&queue, [7]).await;
    let delete = async {
        tokio::time::sleep(SECOND / 2).await;
        queue.delete().await.unwrap();
    };
    let (report, ()) = tokio::join!(worker().build().unwrap().run(), delete);
    assert_eq!(report.unwrap().lease_lost, 1);
    assert_eq!(recorder.with(&["WARN", "lease was lost"]).len(), 1);
}

#[test]
fn drop_3_a_delivery_that_is_dropped_outside_a_runtime_is_a_warning() {
    let recorder = Recorder::default();
    let _guard = subscriber::set_default(recorder.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let queue = Probe::new().queue("exams");
    let mut deliveries = runtime.block_on(async {
        fill(&queue, 0..2).await;
        queue.consumer().retry(RetryPolicy::custom(|_| panic!("not asked"))).open().await.unwrap().next_batch(2).await
    });
    let id = deliveries.as_ref().unwrap()[0].id().to_string();
    drop(deliveries.as_mut().unwrap().remove(0));
    let warned = recorder.with(&["WARN", "queue=exams", &format!("id={id}"), "outside a tokio runtime"]);
    assert_eq!(warned.len(), 1, "{:#?}", recorder.lines.lock());
    runtime.block_on(async { deliveries.unwrap().remove(0).complete().await.unwrap() });
    assert_eq!(recorder.with(&["WARN"]).len(), 1, "what is settled needs no runtime to be dropped in");
}

#[tokio::test(start_paused = true)]
async fn a_policy_or_codec_that_panics_is_a_warning_without_the_payload() {
    let recorder = Recorder::default();
    let _guard = subscriber::set_default(recorder.clone());
    struct Panics;
    impl Codec<String> for Panics {
        fn encode(&self, value: &String) -> Result<Bytes> {
            Ok(value.clone().into())
        }
        fn decode(&self, payload: &Bytes) -> Result<String> {
            panic!("on {payload:?}")
        }
    }
    let queue = Queue::<String>::with_codec(Probe::new(), "exams", Panics).unwrap();
    let policy = || RetryPolicy::custom(|_| panic!("no wait"));
    for id in ["pulled", "run"] {
        queue.schedule(&"hunter2".to_owned()).id(id).attempts_max(1).await.unwrap();
        if id == "pulled" {
            let mut consumer = queue.consumer().retry(policy()).open().await.unwrap();
            assert!(consumer.try_next_batch(1).await.unwrap().is_empty());
        } else {
            let worker = Worker::builder().until_empty(true).retry(policy()).queue(&queue, |_, _| async {});
            worker.build().unwrap().run().await.unwrap();
        }
        assert_eq!(recorder.with(&["WARN", &format!("id={id}"), "attempt=1", "the codec panicked on"]).len(), 1);
    }
    assert_eq!(recorder.with(&["WARN", "no wait", "the default policy"]).len(), 2);
    assert_eq!(recorder.with(&["hunter2"]), Vec::<String>::new());
    assert_eq!(queue.stats().await.unwrap().dead, 2);
}
