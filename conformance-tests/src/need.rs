//! The capabilities that a test needs, and the check that a backend without them answers `Unsupported`.

use std::time::Duration;

use delayline_core::{
    AdminOp, Attempts, Capabilities, Change, ChangeOutcome, DeadLetterOp, DeadLetterSelect, Due, ErrorKind, GroupName,
    NewTask, Page, Result, Select, Support, TaskRef,
};

use crate::trial::Trial;

/// A part of the trait that a backend may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// `extend`.
    Extend,
    /// Cancelling, with a definite answer.
    Cancel,
    /// Moving and shifting, with a definite answer.
    Reschedule,
    /// Changing a group, with a definite answer.
    Groups,
    /// `Replace`.
    Replace,
    /// Answering `Existing`.
    UniqueIds,
    /// `find` and `list`.
    Inspect,
    /// Dead letters.
    DeadLetters,
    /// Pause and resume.
    Pause,
    /// Deleting a queue.
    Delete,
    /// `stats` and `queues`.
    Stats,
    /// Operation ids.
    Operations,
}

impl Need {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Extend,
        Self::Cancel,
        Self::Reschedule,
        Self::Groups,
        Self::Replace,
        Self::UniqueIds,
        Self::Inspect,
        Self::DeadLetters,
        Self::Pause,
        Self::Delete,
        Self::Stats,
        Self::Operations,
    ];

    /// The field of [`Capabilities`] that declares it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Extend => "extend",
            Self::Cancel => "cancel",
            Self::Reschedule => "reschedule",
            Self::Groups => "groups",
            Self::Replace => "replace",
            Self::UniqueIds => "unique_ids",
            Self::Inspect => "inspect",
            Self::DeadLetters => "dead_letters",
            Self::Pause => "pause",
            Self::Delete => "delete",
            Self::Stats => "stats",
            Self::Operations => "operation_window",
        }
    }

    /// What the backend declares about it.
    #[must_use]
    pub fn declared(self, caps: &Capabilities) -> Support {
        match self {
            Self::Extend => caps.extend,
            Self::Cancel => caps.cancel,
            Self::Reschedule => caps.reschedule,
            Self::Groups => caps.groups,
            Self::Replace => caps.replace,
            Self::UniqueIds => caps.unique_ids,
            Self::Inspect => caps.inspect,
            Self::DeadLetters => caps.dead_letters,
            Self::Pause => caps.pause,
            Self::Delete => caps.delete,
            Self::Stats => caps.stats,
            Self::Operations if caps.operation_window > Duration::ZERO => Support::Definite,
            Self::Operations => Support::Unsupported,
        }
    }

    /// Whether the backend supports it, with a definite answer.
    #[must_use]
    pub fn is_met(self, caps: &Capabilities) -> bool {
        self.declared(caps) == Support::Definite
    }

    /// Checks that an operation declared as `Unsupported` answers so and does nothing, and that an operation declared
    /// as a request answers `Requested`.
    ///
    /// # Panics
    /// If it does not.
    pub async fn assert_as_declared(self, t: &Trial) {
        let queue = t.queue(self.field());
        let backend = t.backend();
        let declared = self.declared(t.caps());
        let in_an_hour = || NewTask::new(Duration::from_secs(3600), "untouched");
        let room = GroupName::new("room").expect("a short name");
        match self {
            Self::Extend => {
                t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
                let mut subscription = t.subscribe(&backend, &queue).await;
                let task = t.take(&mut subscription, 1).await.pop().expect("a task that is due");
                unsupported(self, backend.extend(&queue, vec![task.lease.clone()], t.units(1)).await);
                t.complete(&backend, &queue, &[task]).await;
            }
            Self::Cancel | Self::Reschedule => {
                let soon = NewTask::new(t.units(1), "untouched");
                let there: TaskRef = t.put(&backend, &queue, soon).await.into();
                let change = match self {
                    Self::Cancel => Change::cancel(),
                    _ => Change::move_to(Duration::from_secs(7200)),
                };
                let changed = backend.change(&queue, Select::Tasks(vec![there]), change).await;
                match declared {
                    Support::Requested => {
                        let outcomes = changed.expect("a change that is asked for").outcomes;
                        assert!(
                            matches!(outcomes.as_slice(), [Ok(ChangeOutcome::Requested)]),
                            "`{}` is declared as `Requested`, but answered {outcomes:?}",
                            self.field()
                        );
                    }
                    _ => {
                        unsupported(self, changed);
                        let mut subscription = t.subscribe(&backend, &queue).await;
                        let taken = t.take(&mut subscription, 1).await;
                        assert_eq!(taken.len(), 1, "`{}` answered `Unsupported`, but took effect", self.field());
                        t.complete(&backend, &queue, &taken).await;
                    }
                }
            }
            Self::Groups => {
                unsupported(self, t.try_put(&backend, &queue, in_an_hour().group(room.clone())).await);
                unsupported(self, backend.change(&queue, Select::Group(room), Change::cancel()).await);
            }
            Self::Replace => {
                unsupported(self, t.try_put(&backend, &queue, in_an_hour().id(t.id("one")).replace()).await);
            }
            // Without it, an id may stand for two tasks, which is allowed and not required; what is promised of each
            // still holds, and the other tests show it.
            Self::UniqueIds => {
                for _ in 0..2 {
                    t.put(&backend, &queue, NewTask::new(Due::NOW, "x").id(t.id("twice"))).await;
                }
                let mut subscription = t.subscribe(&backend, &queue).await;
                let taken = t.take(&mut subscription, 1).await;
                assert_eq!(taken.len(), 1, "a task whose id was used twice");
            }
            Self::Inspect => {
                let id = t.put(&backend, &queue, in_an_hour()).await.task.id;
                unsupported(self, backend.find(&queue, &id).await);
                unsupported(self, backend.list(&queue, Page::first(1)).await);
            }
            Self::DeadLetters => {
                let attempts = Attempts::new(1).expect("one attempt");
                t.put(&backend, &queue, NewTask::new(Due::NOW, "x").attempts_max(attempts)).await;
                for op in [
                    DeadLetterOp::List { after: None, limit: 1 },
                    DeadLetterOp::Redrive { select: DeadLetterSelect::All, rate: None },
                    DeadLetterOp::Purge { select: DeadLetterSelect::All },
                ] {
                    unsupported(self, backend.dead_letters(&queue, op).await);
                }
            }
            Self::Pause => {
                unsupported(self, backend.administer(&queue, AdminOp::Pause).await);
                unsupported(self, backend.administer(&queue, AdminOp::Resume).await);
                t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
                assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1, "the queue is not paused");
            }
            Self::Delete => {
                t.put(&backend, &queue, NewTask::new(Due::NOW, "x")).await;
                unsupported(self, backend.administer(&queue, AdminOp::Delete).await);
                assert_eq!(t.drain(&backend, &queue, 1).await.len(), 1, "the queue was not deleted");
            }
            Self::Stats => {
                unsupported(self, backend.stats(&queue).await);
                unsupported(self, backend.queues().await);
            }
            // A window of zero promises nothing: an operation id may be ignored.
            Self::Operations => {}
        }
        t.checked(1);
    }
}

fn unsupported<T: std::fmt::Debug>(need: Need, answer: Result<T>) {
    match answer {
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        other => panic!(
            "CANCEL-11: {} is declared as `Unsupported`; expected the answer `Unsupported`, got {other:?}",
            need.field()
        ),
    }
}
