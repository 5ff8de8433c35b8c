//! One trace from the caller that schedules a task to its handler, with OpenTelemetry.
//!
//! ```sh
//! cargo run --example trace_context
//! ```
//!
//! The application tells the queue how to find the current trace context. Each task carries it in the headers
//! `traceparent` and `tracestate`, through any store, and the handler continues the trace. The same works with
//! `tracing-opentelemetry`, whose spans have an OpenTelemetry context.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use delayline::{Context, DelayBackend, Queue, TRACEPARENT, TRACESTATE, TraceContext, Worker, connect};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for span in run(connect("memory:").await?).await? {
        println!("trace {} span {} parent {} {}", trace(&span), id(&span), span.parent_span_id, span.name);
    }
    Ok(())
}

/// Schedules a task in one span and handles it in another; returns both spans.
async fn run(backend: Arc<dyn DelayBackend>) -> Result<Vec<SpanData>, Box<dyn std::error::Error>> {
    // An application uses an exporter here that sends spans to a collector.
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = Arc::new(provider.tracer("exam"));

    // Set once per queue: its tasks carry the trace in which they are scheduled.
    let queue = Queue::<String>::new(backend, "hand-in")?.trace_with(current_trace);

    let span = opentelemetry::Context::current_with_span(tracer.start("begin the exam"));
    {
        // A guard of OpenTelemetry must not be held over an `.await`.
        let scheduling = {
            let _in_span = span.clone().attach();
            queue.schedule(&"anna".to_owned()).after(Duration::from_millis(20)).into_future()
        };
        scheduling.await?;
    }
    span.span().end();

    let handler = {
        let tracer = tracer.clone();
        move |candidate: String, context: Context| {
            let parent = parent_of(&context);
            let span = tracer.start_with_context("hand in", &parent);
            async move {
                // Work that is done here, with `parent.with_span(span)` as its context, belongs to the same trace.
                println!("submitting the exam of {candidate}, {:?} late", context.lateness());
                drop(span);
                Ok::<(), io::Error>(())
            }
        }
    };
    Worker::builder().queue(&queue, handler).until_empty(true).build()?.run().await?;
    provider.force_flush()?;
    Ok(exporter.get_finished_spans()?)
}

/// The trace context of the running code, in the form that a task carries.
fn current_trace() -> Option<TraceContext> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&opentelemetry::Context::current(), &mut carrier);
    let context = TraceContext::new(carrier.get(TRACEPARENT)?).ok()?;
    Some(carrier.get(TRACESTATE).into_iter().fold(context, TraceContext::state))
}

/// The trace context in which a task was scheduled.
fn parent_of(context: &Context) -> opentelemetry::Context {
    let carrier: HashMap<String, String> = context.headers().clone().into_iter().collect();
    TraceContextPropagator::new().extract(&carrier)
}

fn trace(span: &SpanData) -> String {
    span.span_context.trace_id().to_string()
}

fn id(span: &SpanData) -> String {
    span.span_context.span_id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_handler_continues_the_trace_of_whoever_scheduled() {
        let spans = run(connect("memory:").await.unwrap()).await.unwrap();
        let [scheduled, handled] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((scheduled.name.as_ref(), handled.name.as_ref()), ("begin the exam", "hand in"));
        assert_eq!(trace(scheduled), trace(handled), "one trace");
        assert_eq!(handled.parent_span_id, scheduled.span_context.span_id(), "the handler's span hangs below");
        assert!(handled.parent_span_is_remote);
    }
}
