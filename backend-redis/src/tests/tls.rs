//! TLS to the server.

use std::sync::Arc;

use delayline_conformance::servers::Server;
use delayline_core::{DelayBackend, ErrorKind, QueueName, SubscriptionOptions};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::RedisBackend;

/// A door in front of a server that speaks TLS, with a certificate for `localhost`; its port, and the certificate.
async fn tls_door(server: &Redis) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    // By a provider of its own: the client has to find one by itself.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn clear_5_tls_with_a_certificate_that_counts_and_with_one_that_does_not() {
    let server = server(&[]).await;
    let (port, certificate) = tls_door(&server).await;
    let url = format!("rediss://localhost:{port}");
    let trusting = config(&url).tls_roots(certificate.clone());
    let backend = RedisBackend::connect(trusting).await.unwrap();
    let queue = QueueName::new("exam").unwrap();
    let mut subscription = backend.subscribe(&queue, SubscriptionOptions::default()).await.unwrap();
    // The first ring: the connection of the bells speaks TLS, too.
    let began = tokio::time::Instant::now();
    subscription.wait(Duration::from_secs(10)).await;
    assert!(began.elapsed() < Duration::from_secs(9));
    backend.close().await.unwrap();
    let e = RedisBackend::connect(config(&url)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Incompatible && e.message().contains("TLS with localhost"), "{e}");
    let e = RedisBackend::connect(config(&url).tls_roots("no certificate")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
}

#[tokio::test]
async fn clear_5_tls_where_none_is_spoken_is_an_error_and_no_panic() {
    let server = server(&[]).await;
    let e = RedisBackend::connect(config(&server.url().replace("redis:", "rediss:"))).await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Incompatible | ErrorKind::Unavailable), "{e}");
}
