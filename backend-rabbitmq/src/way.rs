//! The way of a message through the levels. Each of its routing keys is one step.
//!
//! A task of the queue `exams` that waits in the levels 10, 7 and 3 has the keys `11>10:0`, `10>7:0`, `7>3:0`,
//! `3>gates` and `exams`, with the slot after the colon. The first is its routing key, the others are in its header
//! `CC`. RabbitMQ also routes by this header, and keeps it when it dead-letters ([sender-selected
//! distribution](https://www.rabbitmq.com/docs/sender-selected)). Each level dead-letters to an exchange that has
//! bindings only for the steps from this level, so that exactly one of the keys matches at a time.
//!
//! The broker looks up a step as a whole, without a pattern. The alternative is a key with one bit for each level,
//! matched by a topic exchange. It would not need `CC`, but its lookup takes the broker four times as long
//! (`cargo bench -p delayline-rabbitmq --bench broker -- routing`).

use delayline_core::QueueName;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::codec::message::CC;
use crate::names::Names;

/// The way of one message into the levels and through them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The exchange to publish to, in front of the first level.
    pub(crate) exchange: String,
    /// The first step.
    pub(crate) routing_key: String,
    /// The other steps, in order. The last one leads to the gate.
    pub(crate) others: Vec<String>,
}

impl Way {
    /// The way through one queue of each level whose bit is set in `ticks`; `None` if no bit is set.
    pub(crate) fn new(names: &Names, slot: u16, ticks: u64, queue: &QueueName) -> Option<Self> {
        let highest = ticks.checked_ilog2()?;
        let (mut from, mut others) = (highest, Vec::new());
        for level in (0..highest).rev().filter(|level| ticks >> level & 1 == 1) {
            others.push(step(from, level, slot));
            from = level;
        }
        others.extend([step_to_gates(from), step_to_gate(queue)]);
        let (exchange, routing_key) = (names.level(highest + 1), step(highest + 1, highest, slot));
        Some(Self { exchange, routing_key, others })
    }

    /// The logical queue at the end of the way of a message, from its properties.
    pub(crate) fn queue_of(properties: &BasicProperties) -> Option<QueueName> {
        let AMQPValue::FieldArray(others) = properties.headers().as_ref()?.inner().get(CC)? else { return None };
        let AMQPValue::LongString(last) = others.as_slice().last()? else { return None };
        QueueName::new(str::from_utf8(last.as_bytes()).ok()?.replace('/', ".")).ok()
    }
}

/// The step from a level to a queue of another level.
pub(crate) fn step(from: u32, to: u32, slot: u16) -> String {
    format!("{from}>{to}:{slot}")
}

/// The step from a level to the exchange of the gates.
pub(crate) fn step_to_gates(from: u32) -> String {
    format!("{from}>gates")
}

/// The step from there to a queue's gate. It is one word, because that is a topic exchange.
pub(crate) fn step_to_gate(queue: &QueueName) -> String {
    queue.as_str().replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::message::Message;

    #[test]
    fn a_way_goes_down_through_the_levels_of_its_bits() {
        let names = Names::new("n");
        let queue = QueueName::new("exam.hand-in").unwrap();
        let way = Way::new(&names, 1, 0b1010, &queue).unwrap();
        assert_eq!((way.exchange.as_str(), way.routing_key.as_str()), ("n.level.4", "4>3:1"));
        assert_eq!(way.others, ["3>1:1", "1>gates", "exam/hand-in"]);
        let way = Way::new(&names, 0, 1, &queue).unwrap();
        assert_eq!((way.exchange.as_str(), way.routing_key.as_str()), ("n.level.1", "1>0:0"));
        assert_eq!(way.others, ["0>gates", "exam/hand-in"]);
        assert_eq!(Way::new(&names, 0, 0, &queue), None);
    }

    #[test]
    fn a_stray_says_where_it_was_to_go() {
        let names = Names::new("delayline");
        let queue = QueueName::new("exam.hand-in").unwrap();
        let way = Way::new(&names, 0, 5, &queue).unwrap();
        let message = Message::marker(1, delayline_core::TaskId::new("a").unwrap());
        assert_eq!(Way::queue_of(&message.properties_on(&way.others)), Some(queue));
        assert_eq!(Way::queue_of(&message.properties()), None);
        assert_eq!(Way::queue_of(&BasicProperties::default()), None);
    }
}
