//! What fits, and what is refused at a limit.

use delayline_core::{
    AdminOp, Change, DeadLetterOp, DeadLetterSelect, DelayBackend, Disposition, ErrorKind, NewTask, OperationId,
    QueueName, Select, SubscriptionOptions, TaskRef,
};
use delayline_memory::{MemoryBackend, MemoryConfig};

use crate::support::{claim, key, ms, open, put, q, settle};

#[tokio::test(start_paused = true)]
async fn bound_5_full_at_its_limits_and_room_again_afterwards() {
    let backend =
        MemoryBackend::with_config(MemoryConfig::default().max_tasks(10).max_bytes(10_000).payload_bytes_max(9_000));
    let mut subscription = open(&backend).await;
    // Several rounds: what is counted wrongly once adds up.
    for round in 0..3 {
        let batch = (0..12).map(|_| NewTask::new(ms(0), "x").id(key("k")).replace()).collect();
        assert_eq!(backend.schedule(&q(), batch).await.unwrap().iter().filter(|r| r.is_ok()).count(), 12);
        let batch = (0..12).map(|i| NewTask::new(ms(0), "x").id(key(&format!("{i}")))).collect();
        let results = backend.schedule(&q(), batch).await.unwrap();
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 9, "round {round}");
        assert_eq!(results[11].as_ref().unwrap_err().kind(), ErrorKind::Full);
        let again = put(&backend, NewTask::new(ms(0), "x").id(key("3"))).await;
        assert!(again.is_ok(), "repeating a schedule is no question of room");

        // One is dead-lettered and counts on, one is cancelled, the rest completed.
        backend.change(&q(), Select::Tasks(vec![key("0").into()]), Change::cancel()).await.unwrap();
        let mut claimed = claim(&mut subscription, 20).await.deliveries;
        assert_eq!(claimed.len(), 9);
        settle(&backend, claimed.remove(0), Disposition::DeadLetter { reason: "poison".into() }).await.unwrap();
        for task in claimed {
            settle(&backend, task, Disposition::Complete).await.unwrap();
        }
        assert_eq!(backend.stats(&q()).await.unwrap().dead, 1);
        backend.dead_letters(&q(), DeadLetterOp::Purge { select: DeadLetterSelect::All }).await.unwrap();

        let large = put(&backend, NewTask::new(ms(0), vec![7u8; 9_000])).await.unwrap();
        assert_eq!(put(&backend, NewTask::new(ms(0), vec![7u8; 1_000])).await.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(put(&backend, NewTask::new(ms(0), vec![7u8; 9_001])).await.unwrap_err().kind(), ErrorKind::TooLarge);
        backend.change(&q(), Select::Tasks(vec![large]), Change::cancel()).await.unwrap();
    }
    backend.administer(&q(), AdminOp::Delete).await.unwrap();
    assert!(put(&backend, NewTask::new(ms(0), vec![7u8; 9_000])).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn bound_6_a_queue_too_many_is_refused_and_empty_ones_do_not_count() {
    let backend = MemoryBackend::with_config(MemoryConfig::default().max_queues(2));
    for i in 0..5 {
        let queue = QueueName::new(format!("q{i}")).unwrap();
        backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    }
    let queue = |i: u32| QueueName::new(format!("q{i}")).unwrap();
    for i in 0..2 {
        assert!(backend.schedule(&queue(i), vec![NewTask::new(ms(1), "")]).await.is_ok());
    }
    let refused = backend.schedule(&queue(2), vec![NewTask::new(ms(1), "")]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(backend.queues().await.unwrap(), [queue(0), queue(1)]);
}

#[tokio::test(start_paused = true)]
async fn bound_11_a_whole_batch_can_be_changed_under_an_operation_id() {
    let backend = MemoryBackend::new();
    let all = vec![TaskRef::from(key("nobody")); backend.capabilities().batch_max];
    let cancel = Change::cancel().operation(OperationId::random());
    assert_eq!(backend.change(&q(), Select::Tasks(all), cancel).await.unwrap().not_found, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn bound_5_a_replacement_of_equal_size_fits_where_burials_went_beyond_the_limit() {
    let backend = MemoryBackend::with_config(MemoryConfig::default().max_bytes(289));
    let mut subscription = open(&backend).await;
    put(&backend, NewTask::new(ms(0), "")).await.unwrap();
    let keyed = || NewTask::new(ms(60_000), "").id(key("a")).replace();
    put(&backend, keyed()).await.unwrap();
    let task = claim(&mut subscription, 1).await.deliveries.remove(0);
    settle(&backend, task, Disposition::DeadLetter { reason: "poison".into() }).await.unwrap();
    put(&backend, keyed()).await.unwrap();
    assert_eq!(put(&backend, NewTask::new(ms(0), "")).await.unwrap_err().kind(), ErrorKind::Full);
}
