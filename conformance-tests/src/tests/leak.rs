//! LEAK: when the work is done, nothing is left. These tests look at the heap, and so run alone in their process.

use std::time::Duration;

use delayline_core::NewTask;

use crate::heap::{Alive, Slack};
use crate::trial::Trial;

/// The case that killed a service overnight: 30,000 delayed tasks through blocking takes, each of which left a listener
/// behind (Redisson 3.10.6, redisson#2055).
pub async fn leak_2_thirty_thousand_tasks_leave_nothing(t: &Trial) {
    let (backend, queue) = (t.bare(), t.queue("exam"));
    let round = async |tasks: usize| {
        let mut intake = t.intake(&backend, &queue).await;
        let exams = (0..tasks).map(|i| NewTask::new(Duration::from_millis(i as u64 % 400), format!("candidate {i}")));
        t.put_all(&backend, &queue, exams).await;
        for _ in 0..tasks {
            let one = t.take(&mut intake, 1).await;
            t.complete(&backend, &queue, &one).await;
        }
        t.checked(tasks as u64);
    };
    // What is allocated once is there after a first round.
    round(1_000).await;
    let before = Alive::now(t).await;
    round(30_000).await;
    Alive::now(t).await.assert_back(&before, Slack::default(), "30,000 tasks, each by a take of its own");
}
