//! Notifications by publish and subscribe: the channel of a queue, on a connection of its own.
//!
//! A connection that is silent for good is also found by TCP's keepalive, unless something in between answers that.

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

/// For the server of `connection`; nothing is opened before the first listener.
pub(crate) fn notifier(config: &RedisConfig, connection: &Connection) -> Result<Notifier> {
    Ok(Notifier::new(Channels::new(config)?, NAME, config.response_timeout, connection.troubles()))
}

/// A server's channels.
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

/// One connection that receives.
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
            Err(_) => Err(unavailable(format!("{} did not answer while connecting", self.server))),
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
            // What is published has no content.
            Some(message) => Ok(Some((message.get_channel_name().as_bytes().to_vec(), Notification::default()))),
            None => Err(unavailable("the subscriber's connection has ended".into())),
        }
    }

    async fn ping(&mut self) -> Result<()> {
        self.sink.ping::<redis::Value>().await.map(drop).map_err(lost)
    }
}

fn lost(e: redis::RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "the subscriber's connection failed").with_source(e)
}
