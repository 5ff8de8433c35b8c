//! Whether the allocator of the `production` program returns memory to the system after a burst. A process of its own.
//!
//! The figures of docs/backends.md, with this allocator and with the system's, with which the test fails:
//!
//! ```text
//! TASKS=3000000 cargo test --release -p delayline-cli --no-default-features --features memory,jemalloc --test resident -- --nocapture
//! TASKS=3000000 cargo test --release -p delayline-cli --no-default-features --features memory --test resident -- --nocapture --ignored
//! ```

use std::time::Duration;

use delayline::memory::MemoryBackend;
use delayline::{Change, DelayBackend, Due, GroupName, NewTask, QueueName, Select};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux kernel");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of resident memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB");
    kib / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[cfg_attr(not(feature = "jemalloc"), ignore = "the system's allocator keeps the memory")]
async fn leak_memory_goes_back_to_the_system_after_a_burst() {
    let tasks: usize = std::env::var("TASKS").map_or(300_000, |n| n.parse().expect("TASKS is a number"));
    let backend = std::sync::Arc::new(MemoryBackend::new());
    let queue: QueueName = "orders".parse().unwrap();
    let group: GroupName = "sale".parse().unwrap();
    let schedule = async |tasks: usize, group: Option<GroupName>| {
        // By several threads, as an application would: what one thread allocates and another frees goes back last.
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let (backend, queue, group) = (backend.clone(), queue.clone(), group.clone());
                tokio::spawn(async move {
                    for batch in 0..tasks / 4_000 {
                        let one = |n: usize| {
                            let id = format!("{producer}-{batch}-{n}-{}", group.is_some()).parse().unwrap();
                            let task = NewTask::new(Due::After(Duration::from_secs(3600)), vec![7; 100]).id(id);
                            group.iter().fold(task, |task, group| task.group(group.clone()))
                        };
                        backend.schedule(&queue, (0..1_000).map(one).collect()).await.unwrap();
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.await.unwrap();
        }
    };
    // What the service holds in any case: a tenth of the burst.
    schedule(tasks / 10, None).await;
    let before = resident();
    schedule(tasks, Some(group.clone())).await;
    let burst = resident();
    let changed = backend.change(&queue, Select::Group(group), Change::cancel()).await.unwrap();
    assert_eq!(changed.changed as usize, tasks / 4_000 * 4_000);
    let cancelled = resident();

    // The allocator returns free pages within ten seconds, by a thread of its own.
    let mut after = cancelled;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = resident();
        if after * 10 <= before * 13 {
            break;
        }
    }
    println!("{tasks} tasks: {before} MiB before, {burst} with them, {cancelled} once cancelled, {after} in the end");
    assert!(after * 10 <= before * 13, "{after} of {burst} MiB are still resident, {before} were before");
}
