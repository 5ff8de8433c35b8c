//! TIME: never early, late only as declared.

use std::time::Duration;

use delayline_core::NewTask;

use crate::trial::Trial;

pub async fn time_1_a_task_is_never_handed_out_early(t: &Trial) {
    let (backend, queue) = (t.backend(), t.queue("mixed"));
    let mut rng = t.rng();
    let unit_ms = t.units(1).as_millis() as u64;
    let delays: Vec<Duration> =
        (0..t.size(3_000, 300)).map(|_| Duration::from_millis(rng.u64(0..20 * unit_ms))).collect();
    let tasks = delays.iter().enumerate().map(|(i, delay)| NewTask::new(*delay, format!("{i}")));
    t.put_all(&backend, &queue, tasks).await;
    assert_eq!(t.drain(&backend, &queue, delays.len()).await.len(), delays.len());
}
