//! Notifications by publish and subscribe: one channel for each queue, on a separate connection.
//!
//! TCP keepalive also detects a dead connection, unless a proxy in between answers the probes.

use std::time::Duration;

use delayline_backend_kit::{Notification, Source, Subscriber};
use delayline_core::{Error, ErrorKind, Result};
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, ProtocolVersion};
use tokio::time::timeout;

use crate::RedisConfig;
use crate::limits::NAME;
use crate::transport::{Connection, connecting_failed, unavailable};

/// All listeners of a backend, by channel.
pub(crate) type Notifier = delayline_backend_kit::Notifier<Channels>;

/// The notifier for the server of `connection`. The first listener opens its connection.
pub(crate) fn notifier(config: &RedisConfig, connection: &Connection) -> Result<Notifier> {
    Ok(Notifier::new(Channels::new(config)?, NAME, config.response_timeout, connection.troubles()))
}

/// The channels of a server.
#[derive(Debug)]
pub(crate) struct Channels {
    client: Client,
    server: String,
    connect_timeout: Duration,
}

impl Channels {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let (client, server) = (config.client(ProtocolVersion::RESP2)?, config.server());
        Ok(Self { client, server, connect_timeout: config.connect_timeout })
    }
}

/// One subscribed connection.
pub(crate) struct ChannelSubscriber {
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Source for Channels {
    type Key = Vec<u8>;
    type Subscriber = ChannelSubscriber;

    async fn connect(&self) -> Result<ChannelSubscriber> {
        match timeout(self.connect_timeout, self.client.get_async_pubsub()).await {
            Ok(Ok(connection)) => {
                let (sink, stream) = connection.split();
                Ok(ChannelSubscriber { sink, stream })
            }
            Ok(Err(e)) => Err(connecting_failed(&self.server, &e)),
            Err(_) => Err(unavailable(format!("{} did not answer within the connect timeout", self.server))),
        }
    }
}

impl Subscriber for ChannelSubscriber {
    type Key = Vec<u8>;

    async fn subscribe(&mut self, channels: Vec<Vec<u8>>) -> Result<()> {
        self.sink.subscribe(&channels).await.map_err(lost)
    }

    async fn unsubscribe(&mut self, channels: Vec<Vec<u8>>) -> Result<()> {
        self.sink.unsubscribe(&channels).await.map_err(lost)
    }

    async fn receive(&mut self) -> Result<Option<(Vec<u8>, Notification)>> {
        match self.stream.next().await {
            // Notifications carry no payload.
            Some(message) => Ok(Some((message.get_channel_name().as_bytes().to_vec(), Notification::default()))),
            None => Err(unavailable("the connection for notifications was closed".into())),
        }
    }

    async fn ping(&mut self) -> Result<()> {
        self.sink.ping::<redis::Value>().await.map(drop).map_err(lost)
    }
}

fn lost(e: redis::RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection for notifications failed").with_source(e)
}
