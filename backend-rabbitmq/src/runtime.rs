//! What the driver runs on: tokio, but nobody sleeps on when the link is closed.
//!
//! The driver's heartbeat sleeps for half of its time between two looks whether the connection is still there, and its task
//! would be left for as long after `close` (LEAK-8).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::{AsFd as AsSocket, AsRawFd as AsRawSocket};
#[cfg(windows)]
use std::os::windows::io::{AsRawSocket, AsSocket};
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The longest sleep when the link has been closed: it may be asked for again and again until the connection is.
const LAST_SLEEP_MAX: Duration = Duration::from_millis(10);

/// The runtime that this is called in. Its sleepers wake when `closed` turns true, or its sender is gone.
pub(crate) fn current(closed: watch::Receiver<bool>) -> Runtime<RuntimeParts<Tokio, WokenAtEnd>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), WokenAtEnd { tokio, closed }))
}

/// Tokio's reactor, but for sleeping.
#[derive(Clone, Debug)]
pub(crate) struct WokenAtEnd {
    tokio: Tokio,
    closed: watch::Receiver<bool>,
}

impl Reactor for WokenAtEnd {
    type TcpStream = <Tokio as Reactor>::TcpStream;
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
        self.tokio.tcp_connect_addr(addr)
    }
}
