//! TLS by the features of the build: which provider it uses, whose certificates count, and what a build without it refuses.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

use std::fmt::{Debug, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use delayline::connect;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, subscriber};

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
mod built {
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use delayline::connect;
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring};
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

    /// With TLS and a certificate that is checked, and unencrypted.
    const URLS: [(&str, &str); 4] = [
        ("rediss://localhost:PORT", "redis://localhost:PORT"),
        ("amqps://localhost:PORT", "amqp://localhost:PORT"),
        ("postgres://localhost:PORT?sslmode=verify-full", "postgres://localhost:PORT?sslmode=disable"),
        ("postgres://localhost:PORT?sslmode=verify-ca", "postgres://localhost:PORT?sslmode=allow"),
    ];

    /// What a process is told: which of the URLs, and what is different in it.
    const URL: &str = "DELAYLINE_TLS_URL";
    const CASE: &str = "DELAYLINE_TLS_CASE";

    #[test]
    fn a_provider_is_installed_for_the_first_connection() {
        each_alone("nothing is installed");
    }

    #[test]
    fn a_provider_that_the_application_has_installed_stays() {
        each_alone("the application installs one");
    }

    #[test]
    fn only_the_certificates_of_the_system_count() {
        each_alone("the system knows another certificate");
    }

    /// A process has one provider and one list of the system's certificates for good, so each case has its own.
    fn each_alone(case: &str) {
        for (number, (url, _)) in URLS.iter().enumerate() {
            let name = format!("{}-{number}.pem", case.replace(' ', "-"));
            let mut program = Command::new(std::env::current_exe().unwrap());
            program.args(["--ignored", "--exact", "built::in_a_process_of_its_own"]);
            program.env(URL, number.to_string()).env(CASE, case).env_remove("SSL_CERT_DIR");
            // What the driver reads in the place of the system's list.
            program.env("SSL_CERT_FILE", Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
            let ran = program.output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && said.contains("1 passed"), "{url}, {case}: {said}");
        }
    }

    #[tokio::test]
    #[ignore = "the others run it"]
    async fn in_a_process_of_its_own() {
        let (url, unencrypted) = URLS[std::env::var(URL).unwrap().parse::<usize>().unwrap()];
        let case = std::env::var(CASE).unwrap();
        let certified = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let known = if case.contains("another certificate") { &other } else { &certified };
        std::fs::write(std::env::var("SSL_CERT_FILE").unwrap(), known.cert.pem()).unwrap();
        let installed = || CryptoProvider::get_default().map(|provider| format!("{:?}", provider.secure_random));
        if case.contains("installs") {
            CryptoProvider { secure_random: &Application, ..ring::default_provider() }.install_default().unwrap();
        } else {
            connect(&unencrypted.replace("PORT", &super::unused_port().to_string())).await.unwrap_err();
            assert_eq!(installed(), None, "it was not needed");
        }

        let (port, shaken) = door(&certified, url.starts_with("postgres")).await;
        let e = connect(&url.replace("PORT", &port.to_string())).await.unwrap_err();
        let shaken =
            timeout(Duration::from_secs(10), shaken).await.unwrap_or_else(|_| panic!("no handshake: {e}")).unwrap();
        assert_eq!(shaken.is_ok(), !case.contains("another certificate"), "{e}: {shaken:?}");

        let ours = if cfg!(feature = "tls-ring") { "Ring" } else { "AwsLcRs" };
        let expected = if case.contains("installs") { "Application" } else { ours };
        assert_eq!(installed().as_deref(), Some(expected));
        // sqlx takes the one that it was built with.
        let asks = case.contains("installs") && !url.starts_with("postgres");
        assert_eq!(DRAWN.load(Ordering::Relaxed) > 0, asks, "the installed one is used");
    }

    /// A provider's randomness that counts how often it was used.
    #[derive(Debug)]
    struct Application;

    static DRAWN: AtomicUsize = AtomicUsize::new(0);

    impl SecureRandom for Application {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            DRAWN.fetch_add(1, Ordering::Relaxed);
            ring::default_provider().secure_random.fill(bytes)
        }
    }

    /// A server that does one handshake, tells how it ended, and hangs up; that of Postgres is asked for TLS first.
    async fn door(certified: &CertifiedKey<KeyPair>, is_asked: bool) -> (u16, oneshot::Receiver<std::io::Result<()>>) {
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        // By a provider of its own: what is installed is for the client to find.
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certified.cert.der().clone()], key.into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, shaken) = oneshot::channel();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            if is_asked {
                client.read_exact(&mut [0; 8]).await.unwrap();
                client.write_all(b"S").await.unwrap();
            }
            let _ = told.send(acceptor.accept(client).await.map(drop));
        });
        (port, shaken)
    }
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
mod not_built {
    use delayline::postgres::{PostgresBackend, PostgresConfig, SslMode};
    use delayline::{Error, ErrorKind, connect};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[track_caller]
    fn names_the_features(e: &Error) {
        assert!(e.kind() == ErrorKind::Config && e.message().contains("`tls-ring` or `tls-aws-lc-rs`"), "{e}");
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }

    #[tokio::test]
    async fn clear_3_what_needs_tls_names_its_features() {
        // Where something listens, so that nothing else can be said of it.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("me:hunter2@{}", listener.local_addr().unwrap());
        for url in [
            format!("rediss://{place}"),
            format!("REDISS://{place}/1?shards=2"),
            format!("amqps://{place}"),
            format!("AMQPS://{place}/x"),
            format!("postgres://{place}?sslmode=require"),
            format!("postgresql://{place}/x?sslmode=verify-ca"),
            format!("postgres://{place}?sslmode=verify-full&schema=x"),
            format!("postgres://{place}?sslrootcert=/nowhere.pem"),
            format!("postgres://{place}?listen_url=postgres://{place}?sslmode%3Drequire"),
        ] {
            names_the_features(&connect(&url).await.unwrap_err());
        }
        let plain = || PostgresConfig::from_url(&format!("postgres://{place}")).unwrap();
        for config in
            [plain().ssl_mode(SslMode::VerifyFull), plain().tls_roots("PEM"), plain().tls_client("PEM", "PEM")]
        {
            names_the_features(&PostgresBackend::connect(config).await.unwrap_err());
        }
        let server = PgConnectOptions::new_without_pgpass().host("127.0.0.1").ssl_mode(PgSslMode::Require);
        let server = server.port(listener.local_addr().unwrap().port()).password("hunter2");
        let pool = PgPoolOptions::new().connect_lazy_with(server);
        names_the_features(&PostgresBackend::connect(PostgresConfig::from_pool(pool)).await.unwrap_err());
    }

    #[tokio::test]
    async fn postgres_connects_unencrypted_where_that_is_allowed() {
        for mode in ["prefer", "allow", "disable"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("postgres://me@{}?sslmode={mode}", listener.local_addr().unwrap());
            let greeted = tokio::spawn(async move {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut greeting = [0; 8];
                client.read_exact(&mut greeting).await.unwrap();
                greeting
            });
            connect(&url).await.unwrap_err();
            // Version 3.0 of the protocol, where a client that wants TLS asks for it.
            assert_eq!(greeted.await.unwrap()[4..], [0, 3, 0, 0], "{mode}");
        }
    }
}

/// A port on which nobody listens.
fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Keeps warnings as text.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        *meta.level() == Level::WARN && meta.target().starts_with("delayline")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_password_that_is_sent_unprotected_is_warned_of_once() {
    let warnings = Warnings::default();
    let _guard = subscriber::set_default(warnings.clone());
    // Addresses that are nobody's: RFC 5737.
    for (url, server, instead) in [
        ("redis://:hunter2@192.0.2.1", "192.0.2.1:6379", "unencrypted; use `rediss://`"),
        ("amqp://me:hunter2@192.0.2.2", "192.0.2.2:5672", "unencrypted; use `amqps://`"),
        ("postgres://me:hunter2@192.0.2.3", "192.0.2.3:5432", "check of the server's certificate (`sslmode=prefer`)"),
        ("postgres://me:hunter2@192.0.2.4?sslmode=disable", "192.0.2.4:5432", "unencrypted (`sslmode=disable`)"),
    ] {
        let separator = if url.contains('?') { '&' } else { '?' };
        for _ in 0..2 {
            connect(&format!("{url}{separator}connect_timeout=20ms")).await.unwrap_err();
        }
        let said = std::mem::take(&mut *warnings.0.lock());
        let [said] = said.as_slice() else { panic!("{url}: {said:?}") };
        assert!(said.contains(server) && said.contains(instead) && !said.contains("hunter2"), "{url}: {said}");
    }
    let port = unused_port();
    let mut silent = vec![
        format!("redis://:hunter2@localhost:{port}"),
        format!("redis://:hunter2@127.0.0.1:{port}"),
        format!("amqp://me:hunter2@[::1]:{port}"),
        format!("postgres://me:hunter2@127.0.0.1:{port}"),
        "postgres:///x?host=/nowhere&user=me&password=hunter2".into(),
        "redis://192.0.2.9?connect_timeout=20ms".into(),
        "amqp://192.0.2.9?connect_timeout=20ms".into(),
    ];
    if cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs")) {
        let protected = ["rediss://me:hunter2@192.0.2.9?", "amqps://me:hunter2@192.0.2.9?"];
        let of_postgres =
            ["verify-ca", "verify-full"].map(|mode| format!("postgres://me:hunter2@192.0.2.9?sslmode={mode}&"));
        let protected = protected.map(str::to_owned).into_iter().chain(of_postgres);
        silent.extend(protected.map(|url| url + "connect_timeout=20ms"));
    }
    for url in &silent {
        connect(url).await.unwrap_err();
    }
    assert_eq!(*warnings.0.lock(), Vec::<String>::new());
}
