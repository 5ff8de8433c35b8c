//! A TCP proxy that simulates a bad network: it resets connections, drops into silence, delays, splits data, and passes
//! only one direction.
//!
//! Between a backend and its server, it shows how the backend behaves if packets are lost rather than refused. Killing
//! the server does not show that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The behaviour of the link, for existing and future connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From the client to the server.
    pub to_server: Way,
    /// From the server to the client.
    pub to_client: Way,
    /// Whether new connections are reset at once.
    pub refuse: bool,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Whether data passes. Data that arrives meanwhile is kept, as in a network's buffers, and passes later.
    pub open: bool,
    /// The delay of each piece.
    pub delay: Duration,
    /// The largest piece, in bytes.
    pub slice: usize,
}

impl Link {
    /// A link without any fault.
    pub const GOOD: Self = Self { to_server: Way::GOOD, to_client: Way::GOOD, refuse: false };

    /// Nothing passes, and neither side notices: neither bytes nor the end of a connection.
    pub const HALF_OPEN: Self = Self { to_server: Way::SHUT, to_client: Way::SHUT, refuse: false };

    /// Requests arrive, and their answers are lost.
    pub const NO_ANSWERS: Self = Self { to_server: Way::GOOD, to_client: Way::SHUT, refuse: false };

    /// Answers to earlier requests arrive, but no request does.
    pub const NO_REQUESTS: Self = Self { to_server: Way::SHUT, to_client: Way::GOOD, refuse: false };

    /// Each piece takes this long, in both directions.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        let way = Way { delay, ..Way::GOOD };
        Self { to_server: way, to_client: way, refuse: false }
    }

    /// Bytes arrive in pieces of at most this size, so that no message arrives whole.
    #[must_use]
    pub fn sliced(bytes: usize) -> Self {
        let way = Way { slice: bytes.max(1), ..Way::GOOD };
        Self { to_server: way, to_client: way, refuse: false }
    }

    /// No new connection.
    #[must_use]
    pub fn refusing() -> Self {
        Self { refuse: true, ..Self::GOOD }
    }
}

impl Way {
    /// Everything passes at once.
    pub const GOOD: Self = Self { open: true, delay: Duration::ZERO, slice: 16 * 1024 };

    /// Nothing passes.
    pub const SHUT: Self = Self { open: false, ..Self::GOOD };
}

/// A proxy in front of one server, on its own port. When it is dropped, it resets its connections and stops listening.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    link: watch::Sender<Link>,
    /// Counts up when all connections are to be reset.
    cuts: watch::Sender<u64>,
    connections: AtomicUsize,
    accepted: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// Listens in front of `target`.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            link: watch::Sender::new(Link::GOOD),
            cuts: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            tasks: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// The address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A server's URL, with the proxy's host and port instead of the server's.
    ///
    /// # Panics
    /// If the URL does not contain the server's address as it was passed to [`start`](Self::start).
    #[must_use]
    pub fn url(&self, of_server: &str) -> String {
        let target = self.shared.target.to_string();
        assert!(of_server.contains(&target), "the URL does not contain {target}");
        of_server.replacen(&target, &self.address.to_string(), 1)
    }

    /// Sets the behaviour of the link from now on.
    pub fn set(&self, link: Link) {
        self.shared.link.send_replace(link);
    }

    /// Resets every connection: both ends see it at once.
    pub fn reset(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Number of open connections through the proxy.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Number of connections that were ever made to the proxy.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.tasks.lock().abort_all();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        if shared.link.borrow().refuse {
            reset(&client);
            continue;
        }
        let of_connection = shared.clone();
        let mut tasks = shared.tasks.lock();
        // Those that have ended are of no more use.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            of_connection.connections.fetch_add(1, Ordering::SeqCst);
            let _gone = Gone(&of_connection.connections);
            carry(client, &of_connection).await;
        });
    }
}

struct Gone<'a>(&'a AtomicUsize);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, shared: &Shared) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.target).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Both ends see a reset if the proxy is dropped meanwhile, too.
    reset_on_drop(&client);
    reset_on_drop(&server);
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(from_client, to_server, shared.link.subscribe(), |link| link.to_server);
        let back = pump(from_server, to_client, shared.link.subscribe(), |link| link.to_client);
        tokio::select! {
            // One end that has closed in order may still be listening, so the other way goes on.
            ended = async { tokio::try_join!(there, back) } => ended.map(drop),
            _ = cuts.changed() => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    if ended.is_ok() {
        keep_order(&client);
        keep_order(&server);
    }
}

/// Carries one way until its source ends, and passes the end on, as the link allows.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut link: watch::Receiver<Link>,
    way_of: impl Fn(&Link) -> Way,
) -> io::Result<()> {
    let mut buffer = vec![0; Way::GOOD.slice];
    loop {
        let n = from.read(&mut buffer).await?;
        let mut piece = &buffer[..n];
        loop {
            // The sender lives as long as the connection.
            let way = link.wait_for(|link| way_of(link).open).await.map(|link| way_of(&link)).unwrap_or(Way::GOOD);
            if !way.delay.is_zero() {
                tokio::time::sleep(way.delay).await;
            }
            if n == 0 {
                return to.shutdown().await;
            }
            let (now, rest) = piece.split_at(piece.len().min(way.slice));
            to.write_all(now).await?;
            to.flush().await?;
            piece = rest;
            if piece.is_empty() {
                break;
            }
            // So that the slices are segments of their own, rather than joined again on the way.
            tokio::task::yield_now().await;
        }
    }
}

fn reset(stream: &TcpStream) {
    reset_on_drop(stream);
}

/// Closed with a linger of zero, a socket sends a reset.
fn reset_on_drop(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Undoes it: the connection has ended in order.
fn keep_order(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(None);
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// A server that answers every byte with the next number.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                        let answer: Vec<u8> = buffer[..n].iter().map(|byte| byte.wrapping_add(1)).collect();
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    async fn client(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    /// Nothing comes for a while. It can't prove more, and a proxy that lets through what it should not is found by it.
    async fn silent(stream: &mut TcpStream) -> bool {
        let mut one = [0];
        tokio::time::timeout(Duration::from_millis(200), stream.read(&mut one)).await.is_err()
    }

    #[tokio::test]
    async fn it_carries_both_ways_and_passes_the_end_on() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        assert_eq!(ask(&mut stream, b"abc").await.unwrap(), b"bcd");
        assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0, "an end in order, and no reset");
    }

    #[tokio::test]
    async fn reset_is_seen_at_once() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        ask(&mut stream, b"abc").await.unwrap();
        proxy.reset();
        let mut one = [0];
        assert_eq!(stream.read(&mut one).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(ask(&mut client(&proxy).await, b"abc").await.unwrap(), b"bcd", "a new one works");
    }

    #[tokio::test]
    async fn refused_connections_are_reset() {
        let proxy = Proxy::start(server().await).await.unwrap();
        proxy.set(Link::refusing());
        let mut stream = client(&proxy).await;
        assert!(ask(&mut stream, b"a").await.is_err());
        assert_eq!((proxy.connections(), proxy.accepted()), (0, 1));
    }

    #[tokio::test]
    async fn half_open_is_silent_and_what_was_sent_passes_later() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        ask(&mut stream, b"abc").await.unwrap();
        proxy.set(Link::HALF_OPEN);
        stream.write_all(b"x").await.unwrap();
        assert!(silent(&mut stream).await);
        let mut second = client(&proxy).await;
        second.write_all(b"x").await.unwrap();
        assert!(silent(&mut second).await, "a new connection is made, and silent too");
        proxy.set(Link::GOOD);
        let mut one = [0];
        stream.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"y");
    }

    #[tokio::test]
    async fn one_way_passes_requests_or_answers() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        ask(&mut stream, b"abc").await.unwrap();
        proxy.set(Link::NO_ANSWERS);
        stream.write_all(b"x").await.unwrap();
        assert!(silent(&mut stream).await);
        proxy.set(Link::NO_REQUESTS);
        let mut one = [0];
        stream.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"y", "the server had got it");
        stream.write_all(b"x").await.unwrap();
        assert!(silent(&mut stream).await);
    }

    #[tokio::test]
    async fn slow_takes_its_time_each_way() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        ask(&mut stream, b"a").await.unwrap();
        proxy.set(Link::slow(Duration::from_millis(100)));
        let began = tokio::time::Instant::now();
        ask(&mut stream, b"a").await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(200));
    }

    /// Notes how much comes with each write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl tokio::io::AsyncWrite for Writes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn sliced_comes_in_pieces_and_whole() {
        let (link, writes) = (watch::Sender::new(Link::sliced(3)), Writes::default());
        pump(&b"abcdefgh"[..], writes.clone(), link.subscribe(), |link| link.to_server).await.unwrap();
        assert_eq!(*writes.0.lock(), [&b"abc"[..], b"def", b"gh"]);

        let proxy = Proxy::start(server().await).await.unwrap();
        proxy.set(Link::sliced(1));
        let text = b"the quick brown fox".repeat(20);
        let answer = ask(&mut client(&proxy).await, &text).await.unwrap();
        assert!(answer.iter().zip(&text).all(|(a, t)| *a == t + 1));
    }

    #[tokio::test]
    async fn dropped_it_resets_and_listens_no_more() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let mut stream = client(&proxy).await;
        ask(&mut stream, b"abc").await.unwrap();
        let address = proxy.address();
        drop(proxy);
        let mut one = [0];
        assert!(matches!(stream.read(&mut one).await, Err(_) | Ok(0)));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_url_is_pointed_at_it() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let target = proxy.shared.target;
        let url = proxy.url(&format!("redis://user:secret@{target}/3"));
        assert_eq!(url, format!("redis://user:secret@{}/3", proxy.address()));
    }
}
