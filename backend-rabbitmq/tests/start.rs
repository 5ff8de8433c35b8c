//! Errors at the start, on a broker that really refuses: password, virtual host, permissions, layout, no broker.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::time::Duration;

use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
use delayline_core::{DelayBackend, Due, ErrorKind, NewTask, QueueName};
use delayline_rabbitmq::{RabbitBackend, RabbitConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(broker: &Rabbit) -> RabbitConfig {
    RabbitConfig::from_url(&broker.url()).expect("a URL that is ours").levels(2).namespace("start")
}

async fn refusal(config: RabbitConfig) -> (ErrorKind, String) {
    let e = RabbitBackend::connect(config).await.expect_err("a start that is refused");
    assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    (e.kind(), e.to_string())
}

#[tokio::test]
async fn clear_1_the_start_says_what_is_missing() {
    let broker = Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    for command in [
        &["add_vhost", "school"][..],
        &["add_user", "exams", "hunter2"],
        &["add_user", "reader", "hunter2"],
        &["set_permissions", "-p", "school", "reader", "^$", ".*", ".*"],
    ] {
        broker.control(command).unwrap();
    }
    let ours = config(&broker);
    let (kind, said) = refusal(ours.clone().credentials("exams", "hunter22")).await;
    assert!(kind == ErrorKind::Denied && said.contains("`exams`"), "{said}");
    let (kind, said) = refusal(ours.clone().virtual_host("nowhere")).await;
    assert!(kind == ErrorKind::Config && said.contains("`nowhere`"), "{said}");
    let (kind, said) = refusal(ours.clone().credentials("exams", "hunter2").virtual_host("school")).await;
    assert!(kind == ErrorKind::Denied && said.contains("school"), "{said}");
    let (kind, said) = refusal(ours.clone().credentials("reader", "hunter2").virtual_host("school")).await;
    assert!(kind == ErrorKind::Denied && said.contains("configure") && said.contains("start."), "{said}");

    let backend = RabbitBackend::connect(ours.clone()).await.unwrap();
    backend.ping().await.unwrap();
    // Another layout of the same namespace, and another size of the same queue's dead letters.
    let (kind, said) = refusal(ours.clone().levels(3)).await;
    assert!(kind == ErrorKind::Config && said.contains("start.layout") && said.contains("levels=2"), "{said}");
    let queue = QueueName::new("one").unwrap();
    let task = || vec![NewTask::new(Due::NOW, "x")];
    backend.schedule(&queue, task()).await.unwrap().remove(0).unwrap();
    let other = RabbitBackend::connect(ours.clone().dead_letters_max(7)).await.unwrap();
    let e = other.schedule(&queue, task()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.to_string().contains("x-max-length"), "{e}");
    assert!(e.to_string().contains("start.q.one.dead"), "{e}");
    other.close().await.unwrap();
    backend.close().await.unwrap();

    // All of it goes, also what a repetition finds gone.
    let queues = || broker.control(&["list_queues", "name"]).unwrap();
    assert!(queues().contains("start."), "{}", queues());
    for _ in 0..2 {
        RabbitBackend::remove_namespace(ours.clone()).await.unwrap();
        assert!(!queues().contains("start."), "{}", queues());
        let exchanges = broker.control(&["list_exchanges", "name"]).unwrap();
        assert!(!exchanges.contains("start."), "{exchanges}");
    }
}

/// A broker that says it is of version 2: all else goes through as it is.
async fn of_version_2(broker: &Rabbit) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, port) = (listener.local_addr().unwrap(), broker.port());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move {
                let mut greeting = [0; 8];
                client.read_exact(&mut greeting).await.unwrap();
                server.write_all(&greeting).await.unwrap();
                let mut head = [0; 7];
                server.read_exact(&mut head).await.unwrap();
                let size = u32::from_be_bytes(head[3..].try_into().unwrap());
                let mut start = vec![0; size as usize + 1];
                server.read_exact(&mut start).await.unwrap();
                let name = b"\x07versionS";
                let at = start.windows(name.len()).position(|part| part == name).unwrap() + name.len() + 4;
                start[at] = b'2';
                client.write_all(&[&head[..], &start].concat()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn clear_1_a_broker_that_is_too_old_is_refused_with_its_version() {
    let broker = Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
    let old = RabbitConfig::from_url(&format!("amqp://{}", of_version_2(&broker).await)).unwrap();
    let (kind, said) = refusal(old).await;
    assert_eq!(kind, ErrorKind::Incompatible, "{said}");
    assert!(said.contains("the server is RabbitMQ 2.") && said.contains("3.10.0 or newer"), "{said}");
    let exchanges = broker.control(&["list_exchanges", "name"]).unwrap();
    assert!(!exchanges.contains("delayline."), "nothing was made: {exchanges}");
}

#[tokio::test]
async fn clear_1_what_is_no_broker_is_told_so_in_bounded_time() {
    // One that says something else, one that says nothing, and nobody.
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, began) = (other.local_addr().unwrap(), tokio::time::Instant::now());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            // Unread, the greeting would have the stream reset, and the answer may be lost with it.
            let mut greeting = [0; 8];
            let _ = stream.read_exact(&mut greeting).await;
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nno such thing here, and nothing that could be one")
                .await;
        }
    });
    let config =
        |address| RabbitConfig::from_url(&format!("amqp://{address}")).unwrap().connect_timeout(Duration::from_secs(2));
    let (kind, said) = refusal(config(address)).await;
    assert!(matches!(kind, ErrorKind::Incompatible | ErrorKind::Unavailable) && said.contains("RabbitMQ"), "{said}");
    server.abort();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (kind, said) = refusal(config(silent.local_addr().unwrap())).await;
    assert!(kind == ErrorKind::Unavailable && said.contains("within 2s"), "{said}");
    let nobody = silent.local_addr().unwrap();
    drop(silent);
    let (kind, said) = refusal(config(nobody)).await;
    assert!(kind == ErrorKind::Unavailable && said.contains("can't be reached"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
