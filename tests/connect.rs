//! URLs to backends, and what is said of those that name none.

use delayline::{ErrorKind, connect};

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_opens_and_each_call_makes_another_store() {
    let a = connect("memory:").await.unwrap();
    let b = connect("MEMORY://?max_tasks=5").await.unwrap();
    assert_eq!(connect("memory:?no=5").await.unwrap_err().kind(), ErrorKind::Config);
    a.close().await.unwrap();
    assert_eq!(a.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    b.ping().await.unwrap();
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn clear_3_what_is_not_compiled_in_names_its_feature() {
    let e = connect("memory:").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("feature `memory`"), "{e}");
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn clear_3_redis_names_its_feature() {
    for url in ["redis://user:hunter2@host/", "rediss://user:hunter2@host/"] {
        let e = connect(url).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("feature `redis`"), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
    }
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn clear_3_a_redis_url_is_read_and_its_server_is_asked() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, kind, says) in [
        (format!("redis://user:hunter2@{unused}/"), ErrorKind::Unavailable, "can't be reached"),
        (format!("REDIS://user:hunter2@{unused}/"), ErrorKind::Unavailable, "can't be reached"),
        ("redis://user:hunter2@host/?shards=0".to_owned(), ErrorKind::Config, "shards"),
        ("redis:hunter2".to_owned(), ErrorKind::Config, "redis://"),
    ] {
        let e = connect(&url).await.unwrap_err();
        assert!(e.kind() == kind && e.message().contains(says), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn clear_3_postgres_names_its_feature() {
    for url in ["postgres://user:hunter2@host/", "postgresql://user:hunter2@host/"] {
        let e = connect(url).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("feature `postgres`"), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
    }
}

#[cfg(not(feature = "rabbitmq"))]
#[tokio::test]
async fn clear_3_rabbitmq_names_its_feature() {
    for url in ["amqp://user:hunter2@host/", "amqps://user:hunter2@host/"] {
        let e = connect(url).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("feature `rabbitmq`"), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn clear_3_a_postgres_url_is_read_and_its_server_is_asked() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, kind, says) in [
        (format!("postgres://user:hunter2@{unused}/"), ErrorKind::Unavailable, "can't be reached"),
        (format!("PostgreSQL://user:hunter2@{unused}/x?schema=a"), ErrorKind::Unavailable, "can't be reached"),
        ("postgres://user:hunter2@host/?pool_size=0".to_owned(), ErrorKind::Config, "pool_size"),
        ("postgres:hunter2".to_owned(), ErrorKind::Config, "postgres://"),
    ] {
        let e = connect(&url).await.unwrap_err();
        assert!(e.kind() == kind && e.message().contains(says), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
}

#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn clear_3_an_amqp_url_is_read_and_its_broker_is_asked() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, kind, says) in [
        (format!("amqp://user:hunter2@{unused}/"), ErrorKind::Unavailable, "can't be reached"),
        (format!("AMQP://user:hunter2@{unused}/"), ErrorKind::Unavailable, "can't be reached"),
        ("amqp://user:hunter2@host/?parallel=0".to_owned(), ErrorKind::Config, "parallel"),
        ("amqp:hunter2".to_owned(), ErrorKind::Config, "amqp://"),
    ] {
        let e = connect(&url).await.unwrap_err();
        assert!(e.kind() == kind && e.message().contains(says), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
}

#[tokio::test]
async fn clear_3_an_unknown_or_missing_backend_is_named_without_its_secrets() {
    for (url, says) in [
        ("kafka://user:hunter2@host/", "`kafka`"),
        ("hunter2", "starts with a scheme"),
        ("", "starts with a scheme"),
        ("user hunter2:x", "`...`"),
        ("localhost:hunter2", "unknown URL scheme `localhost`"),
        ("localhost:6379", "`localhost:6379` has no URL scheme: did you mean redis://localhost:6379? ("),
        ("me:12345678", "unknown URL scheme `me`"),
        ("127.0.0.1:5432", "did you mean postgres://127.0.0.1:5432?"),
        ("rabbitmq://user:hunter2@host/", "unknown URL scheme `rabbitmq`; for RabbitMQ, use `amqp://`; "),
    ] {
        let e = connect(url).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.message().contains(says), "{url}: {e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
    }
}
