//! What the driver (lapin 4.12) has to be kept from: it holds on to what nobody can reach, and to the room for what it once had
//! to send.

use futures_util::{FutureExt, Stream, StreamExt, stream};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

/// How many frames or messages the driver is given to send at once. It keeps room for the most that there ever were, about a
/// third of a kilobyte for each frame; a message has three or more.
const SENDING_MAX: usize = 20;

/// Sends each, in order, a few at a time, and brings what became of each, in order: those that come after one that failed
/// are tried as well.
pub(crate) fn sending<F: Future>(each: impl IntoIterator<Item = F>) -> impl Stream<Item = F::Output> {
    // Nothing of them runs before it is polled.
    stream::iter(each.into_iter().collect::<Vec<_>>()).buffered(SENDING_MAX)
}

/// Likewise, and waits for all.
pub(crate) async fn send_all<F: Future>(each: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    sending(each).collect().await
}

/// Begins to consume from a queue.
///
/// # Cancel safety
/// Dropped, the channel is closed. The driver would keep the consumer that the broker grants, and with it the channel: the
/// broker would hand it messages, and none to those who come after it where one consumer is served at a time.
pub(crate) async fn consume(channel: &Channel, queue: &str, arguments: FieldTable) -> lapin::Result<Consumer> {
    let mut asked = ClosedUnlessAnswered(Some(channel));
    let answer = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await;
    asked.0 = None;
    answer
}

/// Has a channel closed, and does not wait for it. Nothing may be sent on it any more.
pub(crate) fn close_soon(channel: &Channel) {
    // The request is on its way with the first poll, and the driver does the rest; one that is closed is left alone.
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

    /// For the broker to be asked without a doubt, and not to have answered.
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
