//! What our queues and exchanges are called, and which way a routing key describes.
//!
//! A key is `slot.b(n-1). ... .b1.b0.queue`: which of a level's parallel queues, one bit of the delay for each level, the
//! highest first, and the logical queue with its dots written as `/`, so that it is one word.

use delayline_core::QueueName;

use crate::RabbitConfig;

#[derive(Clone, Debug)]
pub(crate) struct Names {
    name_space: String,
    levels: u32,
}

impl Names {
    pub(crate) fn new(config: &RabbitConfig) -> Self {
        Self { name_space: config.name_space.clone(), levels: config.levels }
    }

    /// The topic exchange in front of a level's queues.
    pub(crate) fn level(&self, level: u32) -> String {
        format!("{}.level.{level}", self.name_space)
    }

    /// One of a level's queues.
    pub(crate) fn level_queue(&self, level: u32, slot: u16) -> String {
        format!("{}.level.{level}.{slot}", self.name_space)
    }

    /// The topic exchange behind the lowest level, which every gate is bound to.
    pub(crate) fn gates(&self) -> String {
        format!("{}.gates", self.name_space)
    }

    /// Where a message that leaves the level goes next: the exchange of the level below, or that of the gates.
    pub(crate) fn below(&self, level: u32) -> String {
        if level == 0 { self.gates() } else { self.level(level - 1) }
    }

    /// The exchange and queue for what can't be routed.
    pub(crate) fn unroutable(&self) -> String {
        format!("{}.unroutable", self.name_space)
    }

    /// The queue for foreign or corrupt messages.
    pub(crate) fn set_aside(&self) -> String {
        format!("{}.set-aside", self.name_space)
    }

    /// The queue that holds the names of all logical queues, one message each.
    pub(crate) fn registry(&self) -> String {
        format!("{}.queues", self.name_space)
    }

    /// A queue that nothing is published to: whoever has it may make what is missing of what all queues share, or of a logical
    /// queue ([`crate::turn`]).
    pub(crate) fn turn(&self, queue: Option<&QueueName>) -> String {
        match queue {
            Some(queue) => format!("{}.q.{queue}.turn", self.name_space),
            None => format!("{}.turn", self.name_space),
        }
    }

    /// An exchange that nothing is published to: its argument says how the name space is laid out.
    pub(crate) fn layout(&self) -> String {
        format!("{}.layout", self.name_space)
    }

    /// The queue from which one process at a time takes what is due soon.
    pub(crate) fn gate(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.gate", self.name_space)
    }

    /// The queue of what is due.
    pub(crate) fn ready(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.ready", self.name_space)
    }

    /// The queue of dead letters.
    pub(crate) fn dead(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.dead", self.name_space)
    }

    /// What a gate is bound by: anything that ends with its queue.
    pub(crate) fn gate_pattern(&self, queue: &QueueName) -> String {
        format!("*.{}{}", "*.".repeat(self.levels as usize), word(queue))
    }

    /// What a level's queue is bound by: its slot, and a 1 at its level.
    pub(crate) fn enter_pattern(&self, level: u32, slot: u16) -> String {
        format!("{slot}.{}", self.bit_pattern(level, '1'))
    }

    /// What goes past a level: a 0 there.
    pub(crate) fn pass_pattern(&self, level: u32) -> String {
        format!("*.{}", self.bit_pattern(level, '0'))
    }

    fn bit_pattern(&self, level: u32, bit: char) -> String {
        let above = "*.".repeat((self.levels - 1 - level) as usize);
        format!("{above}{bit}.{}*", "*.".repeat(level as usize))
    }

    /// The key of a way through the levels whose bit is set in `ticks`.
    pub(crate) fn key(&self, slot: u16, ticks: u64, queue: &QueueName) -> String {
        let mut key = format!("{slot}.");
        for level in (0..self.levels).rev() {
            key.push_str(if ticks >> level & 1 == 1 { "1." } else { "0." });
        }
        key.push_str(&word(queue));
        key
    }

    /// The logical queue that a key leads to.
    pub(crate) fn queue_of_key(key: &str) -> Option<QueueName> {
        QueueName::new(key.rsplit('.').next()?.replace('/', ".")).ok()
    }
}

fn word(queue: &QueueName) -> String {
    queue.as_str().replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_the_way_and_fits() {
        let config = RabbitConfig::from_url("amqp://host?levels=3").unwrap();
        let names = Names::new(&config);
        let queue = QueueName::new("exam.hand-in").unwrap();
        let key = names.key(1, 0b101, &queue);
        assert_eq!(key, "1.1.0.1.exam/hand-in");
        assert_eq!(Names::queue_of_key(&key), Some(queue.clone()));
        assert_eq!(names.enter_pattern(2, 1), "1.1.*.*.*");
        assert_eq!(names.enter_pattern(0, 1), "1.*.*.1.*");
        assert_eq!(names.pass_pattern(1), "*.*.0.*.*");
        assert_eq!(names.gate_pattern(&queue), "*.*.*.*.exam/hand-in");
        let longest = RabbitConfig::from_url("amqp://host").unwrap().name_space("n".repeat(64));
        let names = Names::new(&longest);
        let queue = QueueName::new("q".repeat(128)).unwrap();
        assert!(names.key(15, 1, &queue).len() <= 255);
        assert!(names.gate(&queue).len() <= 255);
    }
}
