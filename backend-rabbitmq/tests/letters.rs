//! What reading dead letters leaves behind.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use delayline_conformance::servers::{self, Kind};
use delayline_core::{
    Bytes, Claim, DeadLetterOp, DelayBackend, Disposition, Due, NewTask, QueueName, Reason, SubscriptionOptions,
};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use tokio::time::timeout;

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
const LETTERS_MAX: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn bound_7_the_oldest_letters_are_dropped_also_when_they_were_read() {
    let url = tokio::task::spawn_blocking(|| servers::shared(Kind::RabbitMq).unwrap().lock().url()).await.unwrap();
    let config = RabbitConfig::from_url(&url).unwrap().namespace("letters").levels(2);
    let config = config.dead_letters_max(LETTERS_MAX);
    let backend: Arc<dyn DelayBackend> = Arc::new(RabbitBackend::connect(config).await.unwrap());
    let queue = QueueName::new("exams").unwrap();
    dead_letter(&backend, &queue, 0..100).await;
    assert_eq!(letters(&backend, &queue).await, (0..100).collect());
    dead_letter(&backend, &queue, 100..150).await;
    let left = letters(&backend, &queue).await;
    // Which makes room for the markers of those who read.
    assert!((90..=108).contains(&left.len()), "{} letters are left", left.len());
    assert_eq!(left, (150 - u32::try_from(left.len()).unwrap()..150).collect(), "the newest");
    backend.close().await.unwrap();
}

async fn dead_letter(backend: &Arc<dyn DelayBackend>, queue: &QueueName, numbers: std::ops::Range<u32>) {
    let mut subscription = backend.subscribe(queue, SubscriptionOptions::default()).await.unwrap();
    // One by one, so that each is older than the next.
    for number in numbers {
        for answer in backend.schedule(queue, vec![NewTask::new(Due::NOW, number.to_string())]).await.unwrap() {
            answer.unwrap();
        }
        let claimed = async {
            loop {
                let claimed = subscription.claim(Claim::new(1, Duration::from_secs(300))).await.unwrap();
                if !claimed.deliveries.is_empty() {
                    return claimed.deliveries;
                }
                subscription.wait(Duration::from_secs(1)).await;
            }
        };
        let came = timeout(PATIENCE, claimed).await.expect("the task");
        let disposition = Disposition::DeadLetter { reason: Reason::new("done") };
        let dispositions = came.into_iter().map(|task| (task.lease, disposition.clone())).collect();
        for answer in backend.settle(queue, dispositions).await.unwrap() {
            answer.unwrap();
        }
    }
}

async fn letters(backend: &Arc<dyn DelayBackend>, queue: &QueueName) -> BTreeSet<u32> {
    let page = backend.dead_letters(queue, DeadLetterOp::List { after: None, limit: 1_000 }).await.unwrap();
    let number = |payload: &Bytes| std::str::from_utf8(payload).unwrap().parse().unwrap();
    page.letters.iter().map(|letter| number(&letter.payload)).collect()
}
