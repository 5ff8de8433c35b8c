//! The options of a task to schedule: one set of builder methods for [`Schedule`](super::Schedule) and
//! [`Task`](super::Task).

use std::fmt;

use bytes::Bytes;

use crate::{Attempts, Due, Error, GroupName, Headers, NewTask, OnConflict, Result, TRACEPARENT, TaskId, TraceContext};

/// The options so far. The first invalid one is reported when the task is scheduled.
#[derive(Clone)]
pub(super) struct Options {
    /// Its payload is empty.
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

    /// The task with this payload. It gets the trace context unless it already has one.
    pub(super) fn into_task(mut self, payload: Result<Bytes>, trace: Option<TraceContext>) -> Result<NewTask> {
        if let Some(e) = self.refused {
            return Err(e);
        }
        if let Some(trace) = trace
            && self.task.headers.get(TRACEPARENT).is_none()
        {
            // If the trace context does not fit, the task is sent without it: the task is more important.
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
        /// Delay from acceptance to the due time, on the backend's clock, which is monotonic on the memory backend;
        /// rounded up to 1 ms. Default: zero, due at once.
        pub fn after(self, delay: ::std::time::Duration) -> Self {
            self.due(delay)
        }

        /// Due time on the backend's wall clock. A time in the past is due at once.
        pub fn at(self, at: impl Into<$crate::Timestamp>) -> Self {
            self.due(at.into())
        }

        /// Due time: a `Duration`, a `SystemTime`, a [`Timestamp`]($crate::Timestamp) or a [`Due`]($crate::Due).
        /// Default: due at once.
        pub fn due(mut self, due: impl Into<$crate::Due>) -> Self {
            self.options.due(due.into());
            self
        }

        /// Task id chosen by the caller, 1 to 256 bytes. If the backend has unique ids (`Capabilities::unique_ids`),
        /// scheduling the same id again while the task exists has no effect, or [replaces](Self::replace) the task;
        /// otherwise it is a second task. Default: the backend generates a UUIDv7.
        pub fn id(mut self, id: impl TryInto<$crate::TaskId, Error: Into<$crate::Error>>) -> Self {
            self.options.id(id);
            self
        }

        /// Group of the task. Tasks of one group can be cancelled and moved together. Default: none.
        pub fn group(mut self, group: impl TryInto<$crate::GroupName, Error: Into<$crate::Error>>) -> Self {
            self.options.group(group);
            self
        }

        /// Adds a header. Limits: 64 headers, 16 KiB in all.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.options.header(name, value);
            self
        }

        /// Headers of the task; replaces those set before.
        pub fn headers(mut self, headers: $crate::Headers) -> Self {
            self.options.headers(headers);
            self
        }

        /// Last moment at which the task may be delivered; after it, the task is dead-lettered. Must not be before the
        /// due time. Default: the task does not expire.
        pub fn expires(mut self, expires: impl Into<$crate::Due>) -> Self {
            self.options.expires(expires.into());
            self
        }

        /// Maximum number of attempts, after which the task is dead-lettered. Default: 20. Range: 1 to 10,000.
        pub fn attempts_max(mut self, attempts: u32) -> Self {
            self.options.attempts_max(attempts);
            self
        }

        /// Replaces an existing task with the same id; everything is taken from the new task (debounce).
        pub fn replace(mut self) -> Self {
            self.options.replace();
            self
        }
    };
}
pub(super) use task_options;
