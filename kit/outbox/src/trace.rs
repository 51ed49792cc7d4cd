//! The W3C `traceparent` of the work at hand, as text for a row.

use opentelemetry::trace::TraceContextExt;
use stampede_vocab::Traceparent;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Registry, registry::LookupSpan};

/// `traceparent` of the current span; `None` outside a trace.
pub fn current_traceparent() -> Option<String> {
    let span = Span::current();
    noted(&span).map(|trace| trace.to_string()).or_else(|| of_opentelemetry(&span))
}

/// The trace that was stored in the span of the call, in a process that exports no spans.
fn noted(span: &Span) -> Option<Traceparent> {
    let noted = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<Traceparent>().copied())
    });
    noted.flatten()
}

fn of_opentelemetry(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}
