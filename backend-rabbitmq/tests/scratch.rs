use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::*;
use delayline_rabbitmq::*;
use std::time::Duration;
#[tokio::test(flavor = "multi_thread")]
async fn scratch() {
    let broker = Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let b = RabbitBackend::connect(RabbitConfig::from_url(&broker.url()).unwrap().levels(2).name_space("s")).await.unwrap();
    let q = QueueName::new("q").unwrap();
    let tasks = (0..10_000).map(|i| NewTask::new(Duration::from_millis(200), format!("{i}"))).collect();
    for a in b.schedule(&q, tasks).await.unwrap() { a.unwrap(); }
    let mut intake = b.intake(&q, IntakeOptions::default()).await.unwrap();
    let mut n = 0; let mut seen = std::collections::BTreeSet::new();
    let ends = tokio::time::Instant::now() + Duration::from_secs(12);
    while n < 10_000 && tokio::time::Instant::now() < ends {
        let c = intake.claim(Claim::new((10_000 - n).min(1000), Duration::from_secs(600))).await.unwrap();
        if c.deliveries.is_empty() { intake.wait(Duration::from_secs(1)).await; continue; }
        n += c.deliveries.len();
        println!("claimed {} -> {n}", c.deliveries.len());
        for t in &c.deliveries { seen.insert(std::str::from_utf8(&t.payload).unwrap().parse::<u32>().unwrap()); }
        for a in b.settle(&q, c.deliveries.into_iter().map(|t| (t.lease, Verdict::Complete)).collect()).await.unwrap() { a.unwrap(); }
    }
    println!("n {n} missing {:?}", (0..10_000).filter(|i| !seen.contains(i)).collect::<Vec<_>>());
    println!("{}", broker.control(&["list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"]).unwrap());
    println!("{b:?}");
}
