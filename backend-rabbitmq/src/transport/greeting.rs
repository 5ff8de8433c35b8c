//! Reads the broker's version from the first frame of a connection. The driver (lapin 4.12) does not expose it. So the
//! first frame is read, inside TLS, on its way to the driver, and not changed.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncWrite};
use lapin::protocol::{AMQPClass, connection, parse_class};
use lapin::types::{AMQPValue, FieldTable};

/// Maximum size of a first frame that is read. A broker's has about half a kilobyte.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// Size of a frame's head (type, channel and size). One byte ends the frame.
const HEAD_BYTES: usize = 7;
const METHOD: u8 = 1;

/// A version of RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

/// The oldest supported version: the first whose queues support at-least-once dead-lettering.
pub(crate) const OLDEST: Version = Version::new(3, 10);

impl Version {
    pub(crate) const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// Parses versions such as `3.10.8`, `4.0.5-1` or `4.1.0-rc.1`.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let mut number = || {
            let part = parts.next()?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        };
        Some(Self { major: number()?, minor: number()?, patch: number().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The version that a connection's stream has read. Empty if it could not be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<OnceLock<Version>>);

impl Heard {
    pub(crate) fn version(&self) -> Option<Version> {
        self.0.get().copied()
    }
}

/// A stream that reads the first frame as it passes.
#[derive(Debug)]
pub(crate) struct Overheard<S> {
    stream: S,
    /// The part of the first frame that has arrived, until it is parsed or turns out to be invalid.
    first: Option<(Vec<u8>, Heard)>,
}

impl<S> Overheard<S> {
    pub(crate) fn new(stream: S, heard: Heard) -> Self {
        Self { stream, first: Some((Vec::new(), heard)) }
    }

    /// A stream that does not read the first frame.
    pub(crate) fn unheard(stream: S) -> Self {
        Self { stream, first: None }
    }

    fn hear<'b>(&mut self, came: impl Iterator<Item = &'b [u8]>) {
        let Some((bytes, heard)) = &mut self.first else { return };
        came.for_each(|came| bytes.extend_from_slice(came));
        match content(bytes) {
            Ok(None) => {}
            Ok(Some(content)) => {
                if let Some(version) = version(content) {
                    // A connection has only one first frame.
                    let _ = heard.0.set(version);
                }
                self.first = None;
            }
            Err(NoMethod) => self.first = None,
        }
    }
}

/// The first frame is not one that a broker starts with.
#[derive(Debug, PartialEq)]
struct NoMethod;

/// The content of the first frame, once it is complete.
fn content(bytes: &[u8]) -> Result<Option<&[u8]>, NoMethod> {
    if bytes.first().is_some_and(|kind| *kind != METHOD) {
        return Err(NoMethod);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let size = usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).unwrap_or(usize::MAX);
    if size > FRAME_BYTES_MAX {
        return Err(NoMethod);
    }
    Ok(rest.get(..size))
}

/// The version in a `connection.start`, if RabbitMQ sent it.
fn version(content: &[u8]) -> Option<Version> {
    let (_, class) = parse_class(content).ok()?;
    let AMQPClass::Connection(connection::AMQPMethod::Start(start)) = class else { return None };
    let table = &start.server_properties;
    if text(table, "product")? != "RabbitMQ" {
        return None;
    }
    Version::read(text(table, "version")?)
}

fn text<'t>(table: &'t FieldTable, name: &str) -> Option<&'t str> {
    let AMQPValue::LongString(text) = table.inner().get(name)? else { return None };
    str::from_utf8(text.as_bytes()).ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if let Poll::Ready(Ok(n)) = read {
            self.hear([&into[..n]].into_iter());
        }
        read
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read_vectored(cx, into);
        if let Poll::Ready(Ok(mut left)) = read
            && self.first.is_some()
        {
            self.hear(into.iter().map(|part| {
                let n = left.min(part.len());
                left -= n;
                &part[..n]
            }));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::AsyncReadExt;
    use futures_util::io::Cursor;

    use super::*;

    /// What RabbitMQ 3.10.8 began with.
    const STARTS: &[u8] = b"\x01\x00\x00\x00\x00\x01\xf3\x00\n\x00\n\x00\t\x00\x00\x01\xce\x0ccapabilitiesF\x00\x00\x00\xc7\
        \x12publisher_confirmst\x01\x1aexchange_exchange_bindingst\x01\nbasic.nackt\x01\x16consumer_cancel_notifyt\x01\
        \x12connection.blockedt\x01\x13consumer_prioritiest\x01\x1cauthentication_failure_closet\x01\x10per_consumer_qost\x01\
        \x0fdirect_reply_tot\x01\x0ccluster_nameS\x00\x00\x00\x0cdelayline@vm\tcopyrightS\x00\x00\x007Copyright (c) 2007-2022 \
        VMware, Inc. or its affiliates.\x0binformationS\x00\x00\x009Licensed under the MPL 2.0. Website: https://rabbitmq.com\
        \x08platformS\x00\x00\x00\x11Erlang/OTP 25.2.3\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x06\
        3.10.8\x00\x00\x00\x0ePLAIN AMQPLAIN\x00\x00\x00\x05en_US\xce";

    /// What is heard of these bytes, read so many at a time; they come out as they went in.
    async fn heard(bytes: &[u8], at_a_time: usize) -> Option<Version> {
        let heard = Heard::default();
        let mut stream = Overheard::new(Cursor::new(bytes.to_vec()), heard.clone());
        let (mut came, mut some) = (Vec::new(), vec![0; at_a_time]);
        loop {
            let (one, other) = some.split_at_mut(at_a_time / 2);
            let n = stream.read_vectored(&mut [io::IoSliceMut::new(one), io::IoSliceMut::new(other)]).await.unwrap();
            if n == 0 {
                break;
            }
            came.extend_from_slice(&some[..n]);
        }
        assert_eq!(came, bytes);
        heard.version()
    }

    #[tokio::test]
    async fn the_version_is_read_from_the_first_frame_however_it_comes() {
        let mut longer = STARTS.to_vec();
        longer.extend_from_slice(STARTS);
        for at_a_time in [1, 2, 7, 8, 500, STARTS.len(), 4_096] {
            for bytes in [STARTS, &longer] {
                assert_eq!(heard(bytes, at_a_time).await, Some(Version { major: 3, minor: 10, patch: 8 }));
            }
        }
        let another: Vec<u8> = String::from_utf8_lossy(STARTS).replace("RabbitMQ", "CarrotMQ").into_bytes();
        for none in
            [&STARTS[..500], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[1; 40_000], b"\x01\0\0\0\0\0\x02ab\xce", &another]
        {
            assert_eq!(heard(none, 64).await, None);
        }
    }

    #[test]
    fn versions_are_in_their_order() {
        let read = |text| Version::read(text).unwrap();
        assert_eq!(read("4.1.0-rc.1"), Version::new(4, 1));
        assert_eq!(read("4.0.5-1+deb13u1").to_string(), "4.0.5");
        assert!(read("3.9.29") < OLDEST && read("3.10.0") >= OLDEST && read("4.0") > read("3.13.7"));
        for none in ["", "4", "four.one", ".1"] {
            assert_eq!(Version::read(none), None, "{none}");
        }
    }
}
