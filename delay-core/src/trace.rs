//! One trace from the caller that schedules a task to its handler: W3C Trace Context, carried in two headers.
//!
//! The core knows the format and the headers, but no tracing library. The application supplies its current trace
//! context ([`Queue::trace_with`](crate::Queue::trace_with)), and continues the trace in its handlers.

use std::fmt;
use std::str::FromStr;

use crate::names::shown;
use crate::{Error, ErrorKind, Headers, Result};

/// Header that contains the trace id and the id of the span that scheduled.
pub const TRACEPARENT: &str = "traceparent";
/// Header that contains the data of the tracing systems involved.
pub const TRACESTATE: &str = "tracestate";

/// Maximum length of a `tracestate`, in bytes. A longer one is left out, as the standard allows.
const STATE_BYTES_MAX: usize = 512;

/// A position in a trace: a valid `traceparent` of the W3C Trace Context, and its `tracestate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: Box<str>,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// Parses a `traceparent`, such as `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for anything else. The ids must be lower-case hexadecimal and not zero, the
    /// version must not be `ff`, and in version `00` nothing may follow the flags.
    pub fn new(traceparent: impl AsRef<str>) -> Result<Self> {
        let text = traceparent.as_ref().trim();
        if is_traceparent(text) {
            return Ok(Self { parent: text.into(), state: None });
        }
        Err(Error::new(ErrorKind::Invalid, format!("expected a W3C traceparent, got `{}`", shown(text))))
    }

    /// Sets the `tracestate`. It is left out if it is empty, longer than 512 bytes, or contains control characters.
    #[must_use]
    pub fn state(mut self, tracestate: impl AsRef<str>) -> Self {
        let text = tracestate.as_ref().trim();
        let carried = !text.is_empty() && text.len() <= STATE_BYTES_MAX && !text.chars().any(char::is_control);
        self.state = carried.then(|| text.into());
        self
    }

    /// Reads the trace context from headers; `None` if they contain no valid one.
    #[must_use]
    pub fn of(headers: &Headers) -> Option<Self> {
        let context = Self::new(headers.get(TRACEPARENT)?).ok()?;
        Some(match headers.get(TRACESTATE) {
            Some(state) => context.state(state),
            None => context,
        })
    }

    /// Writes the trace context into headers, and replaces the one that is there. The `tracestate` is left out if there
    /// is no room for it.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) if there is no room for the `traceparent`.
    pub fn write(&self, headers: &mut Headers) -> Result<()> {
        headers.insert(TRACEPARENT, &*self.parent)?;
        if let Some(state) = &self.state {
            let _ = headers.insert(TRACESTATE, &**state);
        }
        Ok(())
    }

    /// The `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate`, if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace id: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.parent[3..35]
    }

    /// The id of the span that scheduled: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        &self.parent[36..52]
    }
}

impl FromStr for TraceContext {
    type Err = Error;
    fn from_str(traceparent: &str) -> Result<Self> {
        Self::new(traceparent)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent)
    }
}

/// `version-trace id-span id-flags`; later versions may append more.
fn is_traceparent(text: &str) -> bool {
    const BYTES: usize = 55;
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    let Some(first) = text.get(..BYTES) else { return false };
    let more = &text[BYTES..];
    let mut parts = first.split('-');
    let (Some(version), Some(trace), Some(span), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    let digits = [version, trace, span, flags].into_iter().all(hex);
    let known = version != "ff" && (more.is_empty() || (version != "00" && more.starts_with('-')));
    let plain = more.len() <= STATE_BYTES_MAX && more.bytes().all(|b| b.is_ascii_graphic());
    lengths && digits && set(trace) && set(span) && known && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_checked() {
        let context = TraceContext::new(PARENT).unwrap();
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.span_id(), context.to_string().as_str()), ("b7ad6b7169203331", PARENT));
        assert!(TraceContext::new(PARENT.replacen("00", "01", 1) + "-more").is_ok(), "a later version has more");
        for text in [
            "",
            "traceparent",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &format!("{PARENT}-more"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace("-01", "_01"),
            &format!("{}é", &PARENT[..54]),
        ] {
            assert_eq!(TraceContext::new(text).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
    }

    #[test]
    fn it_travels_in_headers() {
        let mut headers = Headers::new();
        assert_eq!(TraceContext::of(&headers), None);
        let context = TraceContext::new(PARENT).unwrap().state("vendor=1,other=2");
        context.write(&mut headers).unwrap();
        assert_eq!(headers.get("tracestate"), Some("vendor=1,other=2"));
        assert_eq!(TraceContext::of(&headers), Some(context.clone()));
        assert_eq!(context.clone().state("x".repeat(513)).tracestate(), None);
        assert_eq!(context.state("a\nb").tracestate(), None);
        headers.insert(TRACEPARENT, "not from here").unwrap();
        assert_eq!(TraceContext::of(&headers), None);
    }
}
