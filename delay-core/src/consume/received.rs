//! The getters of a claimed task: one set of methods for [`Delivery`](super::Delivery) and [`Context`](crate::Context).

/// The getters, for a type with `fn task(&self) -> &ClaimedTask` and `fn line(&self) -> &Line`.
macro_rules! received_getters {
    () => {
        /// Task id.
        #[must_use]
        pub fn id(&self) -> &$crate::TaskId {
            &self.task().lease.id
        }

        /// Name of the queue.
        #[must_use]
        pub fn queue(&self) -> &$crate::QueueName {
            &self.line().name
        }

        /// When the task was due. For a retry: when the retry was due.
        #[must_use]
        pub fn due_at(&self) -> $crate::Timestamp {
            self.task().due_at
        }

        /// When the task was delivered.
        #[must_use]
        pub fn delivered_at(&self) -> $crate::Timestamp {
            self.task().delivered_at()
        }

        /// How long after its due time the task was delivered, on the clock of the due time.
        #[must_use]
        pub fn lateness(&self) -> ::std::time::Duration {
            self.task().lateness
        }

        /// Number of this attempt, from 1.
        #[must_use]
        pub fn attempt(&self) -> u32 {
            self.task().lease.attempt
        }

        /// Maximum number of attempts, after which the task is dead-lettered.
        #[must_use]
        pub fn attempts_max(&self) -> u32 {
            self.task().attempts_max
        }

        /// Fencing token: rises with every claim of this id, also when the id is reused. Use it to guard your own
        /// writes.
        #[must_use]
        pub fn fence(&self) -> u64 {
            self.task().lease.fence
        }

        /// Last moment at which the task may be delivered; after it, the task is dead-lettered.
        #[must_use]
        pub fn expires_at(&self) -> Option<$crate::Timestamp> {
            self.task().expires_at
        }

        /// Headers of the task.
        #[must_use]
        pub fn headers(&self) -> &$crate::Headers {
            &self.task().headers
        }

        /// Trace context of the caller that scheduled the task; see [`Queue::trace_with`]($crate::Queue::trace_with).
        #[must_use]
        pub fn trace_context(&self) -> Option<$crate::TraceContext> {
            $crate::TraceContext::of(self.headers())
        }

        /// Group of the task.
        #[must_use]
        pub fn group(&self) -> Option<&$crate::GroupName> {
            self.task().group.as_ref()
        }
    };
}
pub(crate) use received_getters;
