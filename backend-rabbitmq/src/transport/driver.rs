//! Workarounds for the driver (lapin 4.12): it keeps consumers and channels that nothing refers to any more, and it
//! keeps the buffers for the most that it ever had to send.

use futures_util::{FutureExt, Stream, StreamExt, stream};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

/// Maximum number of frames or messages that the driver gets to send at once. It keeps buffers for the largest number
/// so far, about a third of a kilobyte for each frame; a message has three or more frames.
const SENDING_MAX: usize = 20;

/// Sends items in order, a few at a time, and yields the outcome of each, in order. After a failure, it sends the rest
/// as well.
pub(crate) fn sending<F: Future>(each: impl IntoIterator<Item = F>) -> impl Stream<Item = F::Output> {
    // None of the futures runs before it is polled.
    stream::iter(each.into_iter().collect::<Vec<_>>()).buffered(SENDING_MAX)
}

/// Like [`sending`], and waits for all outcomes.
pub(crate) async fn send_all<F: Future>(each: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    sending(each).collect().await
}

/// Starts to consume from a queue.
///
/// # Cancel safety
/// A dropped call closes the channel. Otherwise the driver would keep the consumer that the broker has registered, and
/// with it the channel. The broker would deliver messages to it, and on a queue with a single active consumer none to
/// its successors.
pub(crate) async fn consume(channel: &Channel, queue: &str, arguments: FieldTable) -> lapin::Result<Consumer> {
    let mut asked = ClosedUnlessAnswered(Some(channel));
    let answer = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await;
    asked.0 = None;
    answer
}

/// Starts to close a channel and does not wait. Nothing may be sent on it any more.
pub(crate) fn close_soon(channel: &Channel) {
    // The first poll sends the request, and the driver does the rest. Does nothing for a closed channel.
    let _ = channel.close(200, "done".into()).now_or_never();
}

struct ClosedUnlessAnswered<'c>(Option<&'c Channel>);

impl Drop for ClosedUnlessAnswered<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.0 {
            close_soon(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use delayline_conformance::servers::{Kind, Rabbit, Release, Server};
    use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
    use lapin::{BasicProperties, Confirmation};
    use tokio::time::timeout;

    use super::*;
    use crate::config::RabbitConfig;
    use crate::transport::connection::Link;

    /// Makes sure that the request was sent and is not answered yet.
    fn polled_once(asking: impl Future) {
        assert!(asking.now_or_never().is_none(), "the broker can't have answered");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leak_8_a_consumer_that_nobody_waits_for_takes_nothing() {
        let start = || Rabbit::start(&Release::chosen(Kind::RabbitMq).unwrap(), &[]).unwrap();
        let broker = tokio::task::spawn_blocking(start).await.unwrap();
        let link = Link::new(Arc::new(RabbitConfig::from_url(&broker.url()).unwrap()), "testing");
        let channel = link.channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel.queue_declare("gate".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
        for _ in 0..20 {
            polled_once(consume(&link.channel().await.unwrap(), "gate", FieldTable::default()));
        }
        for n in 0..20u8 {
            let payload = [n];
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish("".into(), "gate".into(), options, &payload, BasicProperties::default());
            assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
        }
        let mut consumer = consume(&link.channel().await.unwrap(), "gate", FieldTable::default()).await.unwrap();
        let mut came: Vec<u8> = Vec::new();
        while came.len() < 20 {
            let next = timeout(Duration::from_secs(20), consumer.next()).await.expect("a message that nobody else has");
            came.push(next.unwrap().unwrap().data[0]);
        }
        came.sort_unstable();
        assert_eq!(came, (0..20).collect::<Vec<u8>>());
        link.close().await;
        tokio::task::spawn_blocking(|| drop(broker)).await.unwrap();
    }
}
