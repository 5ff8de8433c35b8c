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

#[tokio::test]
async fn clear_3_an_unknown_or_missing_backend_is_named_without_its_secrets() {
    for (url, says) in [
        ("redis://user:hunter2@host/", "feature `redis`"),
        ("rediss://user:hunter2@host/", "feature `redis`"),
        ("amqp://user:hunter2@host/", "feature `rabbitmq`"),
        ("postgres://user:hunter2@host/", "feature `postgres`"),
        ("kafka://user:hunter2@host/", "`kafka`"),
        ("hunter2", "begins with a scheme"),
        ("", "begins with a scheme"),
        ("user hunter2:x", "`...`"),
    ] {
        let e = connect(url).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.message().contains(says), "{url}: {e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
    }
}
