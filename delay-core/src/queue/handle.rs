//! The queue handle: its backend, name, codec and trace. Its operations are in the other files of this module.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::line::Line;
use crate::{Codec, DelayBackend, Error, Json, QueueName, Result, TraceContext};

/// A typed queue of delayed tasks, on any backend.
///
/// A queue is a cheap handle: a clone refers to the same queue and shares its [group commit](Self::schedule). Creating
/// a handle sends nothing; a queue exists as soon as it is named. Threads and async tasks may share it.
///
/// # Errors
/// Every call returns the errors of its [`DelayBackend`] method. [`Capabilities`](crate::Capabilities) lists in advance
/// what a backend does not support.
///
/// # Cancel safety
/// Every future may be dropped at any await point. What it had already sent may have taken effect; each method of
/// [`DelayBackend`] documents what repeating the call then means.
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
    /// Creates a handle to a queue whose payloads are JSON.
    ///
    /// # Errors
    /// Those of [`QueueName::new`], for the name.
    pub fn new(backend: Arc<dyn DelayBackend>, name: impl TryInto<QueueName, Error: Into<Error>>) -> Result<Self>
    where
        T: Serialize + DeserializeOwned,
    {
        Self::with_codec(backend, name, Json)
    }

    /// Creates a handle to a queue whose payloads `codec` encodes and decodes.
    ///
    /// # Errors
    /// Those of [`QueueName::new`], for the name.
    pub fn with_codec(
        backend: Arc<dyn DelayBackend>,
        name: impl TryInto<QueueName, Error: Into<Error>>,
        codec: impl Codec<T>,
    ) -> Result<Self> {
        let line = Arc::new(Line::new(backend, name.try_into().map_err(Into::into)?));
        Ok(Self { inner: Arc::new(Inner { line, codec: Arc::new(codec), trace: None }) })
    }

    /// Returns the same queue with tracing: each task carries the trace context that `current` returns when the task is
    /// described, in the headers `traceparent` and `tracestate`. A task that already has a `traceparent` header keeps
    /// it. Handlers read the trace context with [`Context::trace_context`](crate::Context::trace_context).
    ///
    /// ```
    /// # use delayline_core::{Queue, TraceContext};
    /// # fn current_traceparent() -> Option<String> { None }
    /// # fn example(queue: Queue<String>) -> Queue<String> {
    /// // The propagator (also called text map or carrier) of a tracing library writes this text.
    /// queue.trace_with(|| TraceContext::new(current_traceparent()?).ok())
    /// # }
    /// ```
    #[must_use]
    pub fn trace_with(&self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        let Inner { line, codec, .. } = &*self.inner;
        let trace: Option<Arc<Tracing>> = Some(Arc::new(current));
        Self { inner: Arc::new(Inner { line: line.clone(), codec: codec.clone(), trace }) }
    }

    /// Returns the same queue with another limit for the single calls that wait to be sent while another call is under
    /// way. Unit: bytes of payload and headers. The limit applies to calls of [`schedule`](Self::schedule) and,
    /// separately, to settlings. Default: 64 MiB.
    ///
    /// Above the limit, `schedule` fails at once with [`Busy`](crate::ErrorKind::Busy), and a settling is retried until
    /// its lease ends. A call that exceeds the limit by itself is sent when nothing else waits. The returned queue
    /// joins its own calls, separately from those of `self`.
    #[must_use]
    pub fn joined_bytes_max(&self, bytes: usize) -> Self {
        let Inner { line, codec, trace } = &*self.inner;
        let line = Arc::new(line.with_joined_bytes_max(bytes));
        Self { inner: Arc::new(Inner { line, codec: codec.clone(), trace: trace.clone() }) }
    }

    /// The queue's name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.inner.line.name
    }

    /// The queue's backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn DelayBackend> {
        &self.inner.line.backend
    }

    /// Decodes a payload, such as that of a [`TaskView`](crate::TaskView) or a dead letter.
    ///
    /// # Errors
    /// [`Codec`](crate::ErrorKind::Codec) if the codec can't decode it.
    pub fn decode(&self, payload: &Bytes) -> Result<T> {
        self.inner.codec.decode(payload)
    }

    pub(crate) fn encode(&self, payload: &T) -> Result<Bytes> {
        self.inner.codec.encode(payload)
    }

    /// The trace context for a task that is described now.
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
