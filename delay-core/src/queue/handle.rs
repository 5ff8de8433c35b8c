//! The queue as a value: its backend, name, codec and trace. What it does stands beside this file.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::line::Line;
use crate::{Codec, DelayBackend, Error, Json, QueueName, Result, TraceContext};

/// A queue of delayed tasks of one type, on any backend.
///
/// It is a cheap handle: a clone is the same queue, and shares its [group commit](Self::schedule). Nothing is sent when it
/// is made; a queue exists as soon as it is named. Its calls can be made from any number of tasks at once.
///
/// # Errors
/// Every call answers what its method of [`DelayBackend`] answers; [`Capabilities`](crate::Capabilities) tell beforehand
/// what a backend has not.
///
/// # Cancel safety
/// Every future may be dropped at any await point. What it had sent may have taken effect; each method of
/// [`DelayBackend`] says what repeating it means.
pub struct Queue<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    line: Arc<Line>,
    codec: Arc<dyn Codec<T>>,
    trace: Option<Arc<Tracing>>,
}

type Tracing = dyn Fn() -> Option<TraceContext> + Send + Sync;

impl<T: 'static> Queue<T> {
    /// A queue whose payloads are JSON.
    ///
    /// # Errors
    /// Of the name, as in [`QueueName::new`].
    pub fn new(backend: Arc<dyn DelayBackend>, name: impl TryInto<QueueName, Error: Into<Error>>) -> Result<Self>
    where
        T: Serialize + DeserializeOwned,
    {
        Self::with_codec(backend, name, Json)
    }

    /// A queue whose payloads are written and read by `codec`.
    ///
    /// # Errors
    /// Of the name, as in [`QueueName::new`].
    pub fn with_codec(
        backend: Arc<dyn DelayBackend>,
        name: impl TryInto<QueueName, Error: Into<Error>>,
        codec: impl Codec<T>,
    ) -> Result<Self> {
        let line = Arc::new(Line::new(backend, name.try_into().map_err(Into::into)?));
        Ok(Self { inner: Arc::new(Inner { line, codec: Arc::new(codec), trace: None }) })
    }

    /// The same queue, whose tasks carry the trace that `current` tells when they are described, in their headers
    /// `traceparent` and `tracestate`. A task that was given a `traceparent` keeps its own. Handlers read it with
    /// [`Context::trace_context`](crate::Context::trace_context).
    ///
    /// ```
    /// # use delayline_core::{Queue, TraceContext};
    /// # fn current_traceparent() -> Option<String> { None }
    /// # fn example(queue: Queue<String>) -> Queue<String> {
    /// // What a tracing library calls its propagator, text map or carrier writes this text.
    /// queue.trace_with(|| TraceContext::new(current_traceparent()?).ok())
    /// # }
    /// ```
    #[must_use]
    pub fn trace_with(&self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        let Inner { line, codec, .. } = &*self.inner;
        let trace: Option<Arc<Tracing>> = Some(Arc::new(current));
        Self { inner: Arc::new(Inner { line: line.clone(), codec: codec.clone(), trace }) }
    }

    /// The same queue with another limit, in bytes of payload and headers, to the single calls that wait to be sent while
    /// another is under way: those of [`schedule`](Self::schedule), and as many again of settlings. Default: 64 MiB.
    ///
    /// Beyond it a call of `schedule` answers [`Busy`](crate::ErrorKind::Busy) at once; a settling is repeated until its lease
    /// ends. One that is larger by itself goes through when nothing else waits. The queue that is returned joins its own
    /// calls, apart from those of `self`.
    #[must_use]
    pub fn joined_bytes_max(&self, bytes: usize) -> Self {
        let Inner { line, codec, trace } = &*self.inner;
        let line = Arc::new(line.with_joined_bytes_max(bytes));
        Self { inner: Arc::new(Inner { line, codec: codec.clone(), trace: trace.clone() }) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.inner.line.name
    }

    /// Its backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn DelayBackend> {
        &self.inner.line.backend
    }

    /// The value in a payload, such as a [`TaskView`](crate::TaskView)'s or a dead letter's.
    ///
    /// # Errors
    /// [`Codec`](crate::ErrorKind::Codec).
    pub fn decode(&self, payload: &Bytes) -> Result<T> {
        self.inner.codec.decode(payload)
    }

    pub(crate) fn encode(&self, payload: &T) -> Result<Bytes> {
        self.inner.codec.encode(payload)
    }

    /// The trace that a task which is described now belongs to.
    pub(crate) fn current_trace(&self) -> Option<TraceContext> {
        self.inner.trace.as_ref().and_then(|current| current())
    }

    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.inner.line
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: 'static> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("backend", &self.backend().capabilities().name)
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}
