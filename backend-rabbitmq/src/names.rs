//! What our queues and exchanges are called.

use delayline_core::QueueName;

use crate::RabbitConfig;

#[derive(Clone, Debug)]
pub(crate) struct Names {
    name_space: String,
}

impl Names {
    pub(crate) fn new(config: &RabbitConfig) -> Self {
        Self { name_space: config.name_space.clone() }
    }

    /// The exchange behind a level, from which steps lead to all lower ones; the one above the highest only lets in.
    pub(crate) fn level(&self, level: u32) -> String {
        format!("{}.level.{level}", self.name_space)
    }

    /// One of a level's queues.
    pub(crate) fn level_queue(&self, level: u32, slot: u16) -> String {
        format!("{}.level.{level}.{slot}", self.name_space)
    }

    /// The exchange that every gate is bound to.
    pub(crate) fn gates(&self) -> String {
        format!("{}.gates", self.name_space)
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

    /// A queue that is made and deleted at once, for the broker to write down what it made before.
    pub(crate) fn another(&self, queue: Option<&QueueName>) -> String {
        match queue {
            Some(queue) => format!("{}.q.{queue}.another", self.name_space),
            None => format!("{}.another", self.name_space),
        }
    }

    /// An exchange that nothing is published to. It is made last of what all queues share; its argument says how that is laid out.
    pub(crate) fn layout(&self) -> String {
        format!("{}.layout", self.name_space)
    }

    /// An exchange that nothing is published to, which is made last of a logical queue.
    pub(crate) fn made(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.made", self.name_space)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit() {
        let longest = RabbitConfig::from_url("amqp://host").unwrap().name_space("n".repeat(64));
        let queue = QueueName::new("q".repeat(128)).unwrap();
        assert!(Names::new(&longest).gate(&queue).len() <= 255);
    }
}
