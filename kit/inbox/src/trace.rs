//! Puts the processing of each message into the trace in which it was written.

use crate::Message;
use opentelemetry::{Context, propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::HashMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A span for each message of a sampled trace, open until it is dropped. None for the others, which cost nothing.
pub fn spans(batch: &[Message]) -> Vec<Span> {
    batch.iter().filter_map(span).collect()
}

fn span(message: &Message) -> Option<Span> {
    let parent = sampled_parent(message.traceparent.as_deref()?)?;
    let span = tracing::info_span!(
        "process",
        otel.name = format!("process {}", message.message_type),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.destination.name = %message.topic,
        messaging.kafka.message.key = %message.key,
    );
    span.set_parent(parent).ok()?;
    Some(span)
}

fn sampled_parent(traceparent: &str) -> Option<Context> {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    let sampled = context.span().span_context().is_sampled();
    sampled.then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sampled_trace_gets_a_span() {
        assert!(sampled_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(sampled_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").is_none());
        assert!(sampled_parent("nonsense").is_none());
    }
}
