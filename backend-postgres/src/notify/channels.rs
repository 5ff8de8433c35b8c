//! Notifications by NOTIFY and LISTEN, on a separate connection.

use std::collections::HashMap;
use std::time::Duration;

use delayline_backend_kit::{Notification, Source, Subscriber};
use delayline_core::{QueueName, Result};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgNotification};
use tokio::sync::watch;

use crate::config::PostgresConfig;
use crate::limits::NAME;
use crate::notify::connection::ListenConnection;
use crate::schema::Schema;
use crate::transport::failure::{Effect, failed, lost};

/// All listeners of a backend, by queue.
pub(crate) type Notifier = delayline_backend_kit::Notifier<Channels>;

/// The notifier for a checked configuration. The first listener opens its connection. `troubles` changes when another
/// connection to the server is lost.
pub(crate) fn notifier(config: &PostgresConfig, schema: Schema, troubles: watch::Receiver<u64>) -> Notifier {
    let Some(server) = config.listens_at() else { return Notifier::polling() };
    let server = server.application_name("delayline listen");
    let channels = Channels { server, schema, connect_timeout: config.connect_timeout };
    Notifier::new(channels, NAME, config.response_timeout, troubles)
}

/// The payload of a notification for `pg_notify`: due time and queue. Several queues may share a channel.
pub(crate) fn message(queue: &QueueName, due_ms: i64) -> String {
    format!("{due_ms} {queue}")
}

/// Decodes a notification. `None` if it can't be decoded: another program sent it on this channel.
fn read(message: &PgNotification) -> Option<(QueueName, Notification)> {
    let (due, queue) = message.payload().split_once(' ')?;
    let due_ms = due.parse().ok()?;
    Some((QueueName::new(queue).ok()?, Notification { due_ms: Some(due_ms), missed: false }))
}

/// The channels of a schema's queues.
#[derive(Debug)]
pub(crate) struct Channels {
    server: PgConnectOptions,
    schema: Schema,
    connect_timeout: Duration,
}

/// One connection that listens.
#[derive(Debug)]
pub(crate) struct ChannelSubscriber {
    connection: ListenConnection,
    schema: Schema,
    /// The number of subscribed queues for each channel that it listens on.
    channels: HashMap<String, usize>,
}

impl Source for Channels {
    type Key = QueueName;
    type Subscriber = ChannelSubscriber;

    async fn connect(&self) -> Result<ChannelSubscriber> {
        let connection = ListenConnection::open(&self.server, self.connect_timeout).await?;
        Ok(ChannelSubscriber { connection, schema: self.schema.clone(), channels: HashMap::new() })
    }
}

impl Subscriber for ChannelSubscriber {
    type Key = QueueName;

    async fn subscribe(&mut self, queues: Vec<QueueName>) -> Result<()> {
        let mut new = Vec::new();
        for queue in &queues {
            let channel = self.schema.channel(queue);
            let queues = self.channels.entry(channel.clone()).or_default();
            *queues += 1;
            if *queues == 1 {
                new.push(channel);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = new.iter().map(String::as_str).collect();
        self.connection.listener().listen_all(names).await.map_err(|e| failed("LISTEN", Effect::Read, e))
    }

    async fn unsubscribe(&mut self, queues: Vec<QueueName>) -> Result<()> {
        for queue in &queues {
            let channel = self.schema.channel(queue);
            let Some(queues) = self.channels.get_mut(&channel) else { continue };
            *queues -= 1;
            if *queues == 0 {
                self.channels.remove(&channel);
                self.connection.listener().unlisten(&channel).await.map_err(|e| failed("UNLISTEN", Effect::Read, e))?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<(QueueName, Notification)>> {
        match self.connection.listener().try_recv().await.map_err(|e| failed("LISTEN", Effect::Read, e))? {
            Some(message) => Ok(read(&message)),
            None => Err(lost("LISTEN", Effect::Read, "the connection was lost")),
        }
    }

    async fn ping(&mut self) -> Result<()> {
        self.connection.listener().execute("SELECT 1").await.map(drop).map_err(|e| failed("ping", Effect::Read, e))
    }
}
