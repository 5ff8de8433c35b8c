//! What every holder of a claimed task can read of it: one set of methods for [`Delivery`](super::Delivery) and
//! [`Context`](crate::Context).

/// The getters, for a type with `fn task(&self) -> &ClaimedTask` and `fn line(&self) -> &Line`.
macro_rules! received_getters {
    () => {
        /// The task's id.
        #[must_use]
        pub fn id(&self) -> &$crate::TaskId {
            &self.task().lease.id
        }

        /// Its queue.
        #[must_use]
        pub fn queue(&self) -> &$crate::QueueName {
            &self.line().name
        }

        /// When it was due: for a retry, when the retry was due.
        #[must_use]
        pub fn due_at(&self) -> $crate::Timestamp {
            self.task().due_at
        }

        /// When it was delivered.
        #[must_use]
        pub fn delivered_at(&self) -> $crate::Timestamp {
            self.task().delivered_at()
        }

        /// How long after its due time it was delivered, on the clock that the due time runs on.
        #[must_use]
        pub fn lateness(&self) -> ::std::time::Duration {
            self.task().lateness
        }

        /// Which attempt this is, from 1.
        #[must_use]
        pub fn attempt(&self) -> u32 {
            self.task().lease.attempt
        }

        /// Attempts it may have before it is dead-lettered.
        #[must_use]
        pub fn attempts_max(&self) -> u32 {
            self.task().attempts_max
        }

        /// Rises with every claim of this id, also when the id is used again: the fencing token to guard one's own
        /// writes with.
        #[must_use]
        pub fn fence(&self) -> u64 {
            self.task().lease.fence
        }

        /// From when on it is dead-lettered rather than run.
        #[must_use]
        pub fn expires_at(&self) -> Option<$crate::Timestamp> {
            self.task().expires_at
        }

        /// Its headers.
        #[must_use]
        pub fn headers(&self) -> &$crate::Headers {
            &self.task().headers
        }

        /// The trace that whoever scheduled it was in; see [`Queue::trace_with`]($crate::Queue::trace_with).
        #[must_use]
        pub fn trace_context(&self) -> Option<$crate::TraceContext> {
            $crate::TraceContext::of(self.headers())
        }

        /// Its group.
        #[must_use]
        pub fn group(&self) -> Option<&$crate::GroupName> {
            self.task().group.as_ref()
        }
    };
}
pub(crate) use received_getters;
