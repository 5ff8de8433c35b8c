//! The names of queues and exchanges.

use delayline_backend_kit::options::bad;
use delayline_core::{QueueName, Result};

/// Maximum length, in bytes, of a namespace, of the name of a namespace within it, and of both together. So a name at
/// the broker, with a queue's name and the words of this module, has at most 255 bytes.
const NAMESPACE_BYTES_MAX: usize = 64;
const WITHIN_BYTES_MAX: usize = 32;
const WHOLE_BYTES_MAX: usize = 96;

/// Words that follow a namespace in the names of queues and exchanges. They are reserved: with a namespace of such a
/// name within it, two namespaces could have the same names.
pub(crate) const WORDS: [&str; 11] =
    ["q", "level", "gates", "unroutable", "set-aside", "queues", "turn", "another", "layout", "namespaces", "held"];

/// Splits a namespace into the outer name and the name within it, if any.
pub(crate) fn parts(namespace: &str) -> (&str, Option<&str>) {
    match namespace.split_once('.') {
        Some((name, within)) => (name, Some(within)),
        None => (namespace, None),
    }
}

/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config) for an invalid namespace.
pub(crate) fn check(namespace: &str) -> Result<()> {
    let (name, within) = parts(namespace);
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.bytes().all(letter) {
        return Err(bad(format!("invalid namespace: use 1 to {NAMESPACE_BYTES_MAX} letters, digits and `-_`")));
    }
    let Some(within) = within else { return Ok(()) };
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if within.is_empty() || within.len() > WITHIN_BYTES_MAX || !within.bytes().all(letter) {
        let what = "invalid namespace within a namespace: after the dot, use 1 to";
        return Err(bad(format!("{what} {WITHIN_BYTES_MAX} letters, digits and `-`")));
    }
    if WORDS.contains(&within) {
        return Err(bad(format!(
            "invalid namespace within a namespace: `{within}` is reserved, use another name after the dot"
        )));
    }
    if namespace.len() > WHOLE_BYTES_MAX {
        return Err(bad(format!(
            "invalid namespace: with the namespace within it, it must have at most {WHOLE_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

#[derive(Clone, Debug)]
pub(crate) struct Names {
    namespace: String,
}

/// Which of a logical queue's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Gate,
    Ready,
    Dead,
}

impl Names {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// The exchange after a level, which routes to all lower levels. The one above the highest level is only the entry.
    pub(crate) fn level(&self, level: u32) -> String {
        format!("{}.level.{level}", self.namespace)
    }

    /// One of the queues of a level.
    pub(crate) fn level_queue(&self, level: u32, slot: u16) -> String {
        format!("{}.level.{level}.{slot}", self.namespace)
    }

    /// The exchange to which every gate is bound.
    pub(crate) fn gates(&self) -> String {
        format!("{}.gates", self.namespace)
    }

    /// The exchange and the queue for unroutable messages.
    pub(crate) fn unroutable(&self) -> String {
        format!("{}.unroutable", self.namespace)
    }

    /// The queue for foreign or corrupt messages.
    pub(crate) fn quarantined(&self) -> String {
        format!("{}.set-aside", self.namespace)
    }

    /// The queue that holds the names of all logical queues, one message each.
    pub(crate) fn registry(&self) -> String {
        format!("{}.queues", self.namespace)
    }

    /// The queue that serves as a lock for creating the shared topology, or that of a logical queue ([`crate::turn`]).
    /// Nothing is published to it.
    pub(crate) fn turn(&self, queue: Option<&QueueName>) -> String {
        match queue {
            Some(queue) => format!("{}.q.{queue}.turn", self.namespace),
            None => format!("{}.turn", self.namespace),
        }
    }

    /// A queue that is declared and deleted at once. This makes the broker persist what was declared before.
    pub(crate) fn another(&self, queue: Option<&QueueName>) -> String {
        match queue {
            Some(queue) => format!("{}.q.{queue}.another", self.namespace),
            None => format!("{}.another", self.namespace),
        }
    }

    /// An exchange that marks the shared topology as complete: it is declared last, and its argument holds the layout.
    /// Nothing is published to it.
    pub(crate) fn layout(&self) -> String {
        format!("{}.layout", self.namespace)
    }

    /// An exchange that marks a logical queue as complete: it is declared last. Nothing is published to it.
    pub(crate) fn made(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.made", self.namespace)
    }

    /// The queue that is exclusive to the connection of the client that holds the namespace ([`crate::namespaces`]).
    pub(crate) fn held(&self) -> String {
        format!("{}.held", self.namespace)
    }

    /// The queue with the names of the namespaces within a namespace, one message each.
    pub(crate) fn namespaces(&self) -> String {
        format!("{}.namespaces", self.namespace)
    }

    /// The queue that serves as a lock for reading and changing that list.
    pub(crate) fn namespaces_turn(&self) -> String {
        format!("{}.namespaces.turn", self.namespace)
    }

    /// The queue of tasks that are due soon. One process at a time consumes it.
    pub(crate) fn gate(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.gate", self.namespace)
    }

    /// The queue of due tasks.
    pub(crate) fn ready(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.ready", self.namespace)
    }

    /// The queue of dead letters.
    pub(crate) fn dead(&self, queue: &QueueName) -> String {
        format!("{}.q.{queue}.dead", self.namespace)
    }

    /// The logical queue and the part that a name stands for: the inverse of [`gate`](Self::gate),
    /// [`ready`](Self::ready) and [`dead`](Self::dead).
    pub(crate) fn part(&self, name: &str) -> Option<(QueueName, Part)> {
        let (queue, part) = name.strip_prefix(self.namespace.as_str())?.strip_prefix(".q.")?.rsplit_once('.')?;
        let part = match part {
            "gate" => Part::Gate,
            "ready" => Part::Ready,
            "dead" => Part::Dead,
            _ => return None,
        };
        Some((QueueName::new(queue).ok()?, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit() {
        let longest = format!("{}.{}", "n".repeat(63), "s".repeat(32));
        check(&longest).unwrap();
        let queue = QueueName::new("q".repeat(128)).unwrap();
        assert!(Names::new(&longest).another(Some(&queue)).len() <= 255);
    }

    #[test]
    fn a_part_is_told_by_its_name() {
        let names = Names::new("n");
        let queue = QueueName::new("exams.gate").unwrap();
        assert_eq!(names.part(&names.gate(&queue)), Some((queue.clone(), Part::Gate)));
        assert_eq!(names.part(&names.ready(&queue)), Some((queue.clone(), Part::Ready)));
        assert_eq!(names.part(&names.dead(&queue)), Some((queue.clone(), Part::Dead)));
        for none in [names.turn(Some(&queue)), names.registry(), "3>2:0".into(), "m.q.exams.gate".into(), String::new()]
        {
            assert_eq!(names.part(&none), None, "{none}");
        }
    }

    #[test]
    fn the_words_are_those_that_stand_behind_a_name() {
        let names = Names::new("n");
        let queue = QueueName::new("exams").unwrap();
        let all = [
            names.level(1),
            names.level_queue(1, 0),
            names.gates(),
            names.unroutable(),
            names.quarantined(),
            names.registry(),
            names.turn(None),
            names.turn(Some(&queue)),
            names.another(None),
            names.another(Some(&queue)),
            names.layout(),
            names.made(&queue),
            names.held(),
            names.namespaces(),
            names.namespaces_turn(),
            names.gate(&queue),
            names.ready(&queue),
            names.dead(&queue),
        ];
        for name in all {
            let word = name.split('.').nth(1).unwrap();
            assert!(WORDS.contains(&word), "{name}");
            assert!(check(&format!("n.{word}")).unwrap_err().message().contains(word), "{word}");
        }
    }
}
