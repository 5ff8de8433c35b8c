//! The driver's runtime: tokio, with two changes. Sleeping tasks of the driver wake when the link is closed, and the
//! broker's first frame is read ([`super::greeting`]).
//!
//! The driver's heartbeat task sleeps for half of its interval between two checks of the connection. Without the
//! change, it would stay for that time after `close` (LEAK-8).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::{AsFd as AsSocket, AsRawFd as AsRawSocket};
#[cfg(windows)]
use std::os::windows::io::{AsRawSocket, AsSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::greeting::{Heard, Overheard};

/// Maximum sleep after the link was closed. The driver may sleep again and again until the connection is closed.
const LAST_SLEEP_MAX: Duration = Duration::from_millis(10);

/// Connects on the current tokio runtime. The driver's sleeping tasks wake when `closed` turns true or its sender is
/// dropped. Afterwards, `heard` has the version that the broker reported.
pub(crate) async fn connect(
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    properties: ConnectionProperties,
    closed: watch::Receiver<bool>,
    heard: Heard,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let plain = Runtime::new(tokio.clone());
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), WokenAtEnd { tokio, closed }));
    let open = async move |uri: AMQPUri, _: Runtime<RuntimeParts<Tokio, WokenAtEnd>>| {
        // The driver gets a plain stream, even if it contains TLS.
        match AMQPUriTcpExt::connect_with_config_async(&uri, tls.as_ref(), &plain).await {
            Ok(stream) => Ok(AsyncTcpStream::Plain(Overheard::new(stream, heard.clone()))),
            Err(e) if plain.is_runtime_shutdown_error(&e) => Err(ErrorKind::RuntimeShutdownError(Arc::new(e)).into()),
            Err(e) => Err(e.into()),
        }
    };
    Connection::connector(uri, runtime, open, properties).await
}

/// Tokio's reactor, apart from sleeping and reading.
#[derive(Clone, Debug)]
pub(crate) struct WokenAtEnd {
    tokio: Tokio,
    closed: watch::Receiver<bool>,
}

impl Reactor for WokenAtEnd {
    /// The stream within TLS, if TLS is used.
    type TcpStream = Overheard<AsyncTcpStream<<Tokio as Reactor>::TcpStream>>;
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn register<H: Read + Write + AsSocket + AsRawSocket + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        let mut closed = self.closed.clone();
        Box::pin(async move {
            let told = async {
                let _ = closed.wait_for(|closed| *closed).await;
            };
            if timeout(time, told).await.is_ok() {
                sleep(time.min(LAST_SLEEP_MAX)).await;
            }
        })
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(time)
    }

    fn tcp_connect_addr(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(addr);
        async move { Ok(Overheard::unheard(AsyncTcpStream::Plain(connecting.await?))) }
    }
}
