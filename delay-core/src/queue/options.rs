//! What can be said of a task when it is scheduled: one set of builder methods for [`Schedule`](super::Schedule) and
//! [`Task`](super::Task).

use std::fmt;

use bytes::Bytes;

use crate::{Attempts, Due, Error, GroupName, Headers, NewTask, OnConflict, Result, TRACEPARENT, TaskId, TraceContext};

/// The options so far. The first one that is refused is reported when the task is scheduled.
#[derive(Clone)]
pub(super) struct Options {
    /// With an empty payload.
    task: NewTask,
    refused: Option<Error>,
}

impl Options {
    pub(super) fn new() -> Self {
        Self { task: NewTask::new(Due::NOW, Bytes::new()), refused: None }
    }

    pub(super) fn due(&mut self, due: Due) {
        self.task.due = due;
    }

    pub(super) fn id(&mut self, id: impl TryInto<TaskId, Error: Into<Error>>) {
        self.task.id = self.checked(id.try_into());
    }

    pub(super) fn group(&mut self, group: impl TryInto<GroupName, Error: Into<Error>>) {
        self.task.group = self.checked(group.try_into());
    }

    pub(super) fn header(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let inserted = self.task.headers.insert(name, value);
        self.checked(inserted);
    }

    pub(super) fn headers(&mut self, headers: Headers) {
        self.task.headers = headers;
    }

    pub(super) fn expires(&mut self, expires: Due) {
        self.task.expires = Some(expires);
    }

    pub(super) fn attempts_max(&mut self, attempts: u32) {
        if let Some(attempts) = self.checked(Attempts::new(attempts)) {
            self.task.attempts_max = attempts;
        }
    }

    pub(super) fn replace(&mut self) {
        self.task.on_conflict = OnConflict::Replace;
    }

    /// The task with this payload, in a trace unless it has one of its own.
    pub(super) fn into_task(mut self, payload: Result<Bytes>, trace: Option<TraceContext>) -> Result<NewTask> {
        if let Some(e) = self.refused {
            return Err(e);
        }
        if let Some(trace) = trace
            && self.task.headers.get(TRACEPARENT).is_none()
        {
            // Without room for it, the task is more important.
            let _ = trace.write(&mut self.task.headers);
        }
        Ok(NewTask { payload: payload?, ..self.task })
    }

    fn checked<V, E: Into<Error>>(&mut self, option: Result<V, E>) -> Option<V> {
        option
            .map_err(|e| {
                self.refused.get_or_insert(e.into());
            })
            .ok()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Options");
        s.field("due", &self.task.due).field("id", &self.task.id).field("group", &self.task.group);
        if let Some(e) = &self.refused {
            s.field("refused", e);
        }
        s.finish_non_exhaustive()
    }
}

/// The builder methods, for a type with a field `options`.
macro_rules! task_options {
    () => {
        /// Due this long after the backend accepted it, on the backend's monotonic clock; rounded up to 1 ms. At once,
        /// if nothing is said.
        pub fn after(self, delay: ::std::time::Duration) -> Self {
            self.due(delay)
        }

        /// Due when the backend's wall clock reaches this instant; at once, if that has passed.
        pub fn at(self, at: impl Into<$crate::Timestamp>) -> Self {
            self.due(at.into())
        }

        /// Due then: a `Duration`, a `SystemTime`, a [`Timestamp`]($crate::Timestamp) or a [`Due`]($crate::Due).
        pub fn due(mut self, due: impl Into<$crate::Due>) -> Self {
            self.options.due(due.into());
            self
        }

        /// Under the caller's own key, 1 to 256 bytes: scheduling the same id again while the task is there has no
        /// effect, or [replaces](Self::replace) it.
        pub fn id(mut self, id: impl TryInto<$crate::TaskId, Error: Into<$crate::Error>>) -> Self {
            self.options.id(id);
            self
        }

        /// As a member of a group, whose tasks can be cancelled and moved together.
        pub fn group(mut self, group: impl TryInto<$crate::GroupName, Error: Into<$crate::Error>>) -> Self {
            self.options.group(group);
            self
        }

        /// With one more header; at most 64, and 16 KiB in all.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.options.header(name, value);
            self
        }

        /// With these headers, in place of those said before.
        pub fn headers(mut self, headers: $crate::Headers) -> Self {
            self.options.headers(headers);
            self
        }

        /// The last moment at which it may be delivered; later it is dead-lettered. Must not lie before the due time.
        pub fn expires(mut self, expires: impl Into<$crate::Due>) -> Self {
            self.options.expires(expires.into());
            self
        }

        /// Dead-lettered after this many attempts: 1 to 10,000, 20 unless told.
        pub fn attempts_max(mut self, attempts: u32) -> Self {
            self.options.attempts_max(attempts);
            self
        }

        /// Takes the place of a task with the same id, with everything new (debounce).
        pub fn replace(mut self) -> Self {
            self.options.replace();
            self
        }
    };
}
pub(super) use task_options;
