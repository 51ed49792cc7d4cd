//! Extracts and injects W3C trace context.
//!
//! With a collector, spans are those of OpenTelemetry, which know their trace. Without one nobody would see them: a
//! span then only notes the `traceparent` of its request, or that of a new trace, which is propagated unchanged.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::{SpanContext, TraceContextExt, TraceId, TraceState},
};
use stampede_vocab::Traceparent;
use tracing::{Span, dispatcher};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, Registry, registry::LookupSpan};

const TRACEPARENT: &str = "traceparent";

/// A marker: the layer of a process without a collector. It does nothing.
pub(super) struct PassedOn;

impl Layer<Registry> for PassedOn {}

/// Returns the trace of these headers, or a new one, in a process without a collector. The span of the request must
/// have it in its field `trace_id`, and [`note`] it. Returns `None` with a collector, where OpenTelemetry has it.
pub fn passed_on(headers: &HeaderMap) -> Option<Traceparent> {
    let sent_to_nobody = dispatcher::get_default(|dispatch| dispatch.downcast_ref::<PassedOn>().is_some());
    sent_to_nobody.then(|| {
        let arrived = headers.get(TRACEPARENT).and_then(|header| header.to_str().ok());
        arrived.and_then(Traceparent::parse).unwrap_or_else(Traceparent::random)
    })
}

/// Attaches the trace to this span.
pub fn note(span: &Span, trace: Traceparent) {
    span.with_subscriber(|(id, dispatch)| {
        if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
            span.extensions_mut().replace(trace);
        }
    });
}

/// Returns the trace that was noted in this span or in an ancestor.
fn noted(span: &Span) -> Option<Traceparent> {
    let noted = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<Traceparent>().copied())
    });
    noted.flatten()
}

/// Makes the remote span of the headers the parent of `span`, which must not have been entered yet, and records the
/// trace id in its field `trace_id`, if it has one.
pub fn adopt_parent(span: &Span, headers: &HeaderMap) {
    if let Some(parent) = remote(headers) {
        // The span is disabled, or there is no telemetry, as in tests.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    record_trace_id(span);
}

/// Keeps `span` in a trace of its own, with a link to the remote span of the headers: an untrusted caller chooses
/// neither the sampling nor the trace id.
pub fn link_stranger(span: &Span, headers: &HeaderMap) {
    if let Some(stranger) = remote(headers) {
        span.add_link(stranger);
    }
    record_trace_id(span);
}

/// Returns the remote span of the headers, without its `tracestate`: nobody here reads that, and it may be longer than
/// all headers of a service may be together.
fn remote(headers: &HeaderMap) -> Option<SpanContext> {
    if !headers.contains_key(TRACEPARENT) {
        return None;
    }
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&Incoming(headers)));
    let named = context.span().span_context().clone();
    let bare = SpanContext::new(named.trace_id(), named.span_id(), named.trace_flags(), true, TraceState::NONE);
    named.is_valid().then_some(bare)
}

fn record_trace_id(span: &Span) {
    if span.has_field("trace_id")
        && let Some(id) = trace_id(span)
    {
        span.record("trace_id", id);
    }
}

/// Returns the id of the trace of `span`, 32 hexadecimal digits; `None` without telemetry, as in tests.
pub fn trace_id(span: &Span) -> Option<String> {
    if let Some(trace) = noted(span) {
        return Some(trace.trace_id());
    }
    let id = span.context().span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// Writes the context of the current span into the headers of a call.
pub fn inject(headers: &mut HeaderMap) {
    let span = Span::current();
    if let Some(trace) = noted(&span) {
        let header = HeaderValue::try_from(trace.to_string()).expect("digits and dashes make a header value");
        headers.insert(TRACEPARENT, header);
        return;
    }
    let context = span.context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Outgoing(headers)));
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::{
        propagation::TraceContextPropagator,
        trace::{Sampler, SdkTracerProvider},
    };
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Runs with the subscriber of a process with a collector, in a trace that is not sampled.
    fn with_unsampled_spans(work: impl FnOnce()) {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    }

    /// Returns the `traceparent` of a call within `span`.
    fn sent_in(span: &Span) -> Option<String> {
        let mut headers = HeaderMap::new();
        span.in_scope(|| inject(&mut headers));
        headers.get(TRACEPARENT).map(|value| value.to_str().unwrap().to_owned())
    }

    fn span_of_a_call_with(traceparent: &'static str) -> Span {
        let span = info_span!("rpc");
        adopt_parent(
            &span,
            &HeaderMap::from_iter([(HeaderName::from_static(TRACEPARENT), HeaderValue::from_static(traceparent))]),
        );
        span
    }

    #[test]
    fn a_trace_passes_through_even_when_nothing_is_sampled() {
        with_unsampled_spans(|| {
            let sent = sent_in(&span_of_a_call_with(PARENT)).unwrap();
            assert_eq!(sent[..36], PARENT[..36], "same trace");
            assert_ne!(sent[36..52], PARENT[36..52], "a span of our own");
        });
    }

    #[test]
    fn a_stranger_names_no_trace_and_no_state_is_sent_on() {
        with_unsampled_spans(|| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
            headers.insert("tracestate", HeaderValue::from_static("vendor=state"));
            let span = info_span!("http");
            link_stranger(&span, &headers);
            assert_ne!(sent_in(&span).unwrap()[..36], PARENT[..36]);
            let span = info_span!("http");
            adopt_parent(&span, &headers);
            let mut sent = HeaderMap::new();
            span.in_scope(|| inject(&mut sent));
            assert!(sent.get("tracestate").is_none_or(http::HeaderValue::is_empty), "{sent:?}");
        });
    }

    #[test]
    fn what_is_no_traceparent_starts_a_new_trace() {
        with_unsampled_spans(|| assert!(sent_in(&span_of_a_call_with("00-xyz")).is_some()));
    }

    #[test]
    fn a_span_is_named_by_the_trace_that_it_is_part_of() {
        with_unsampled_spans(|| {
            assert_eq!(trace_id(&span_of_a_call_with(PARENT)).as_deref(), Some(&PARENT[3..35]));
            assert_eq!(trace_id(&span_of_a_call_with("00-xyz")).map(|id| id.len()), Some(32));
        });
        assert_eq!(trace_id(&Span::none()), None);
    }

    /// Runs with the subscriber of a process without a collector.
    fn without_collector(work: impl FnOnce()) {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(PassedOn), work);
    }

    /// Returns the span of a request with these headers, as the layers make it.
    fn noting_span(headers: &HeaderMap) -> Span {
        let trace = passed_on(headers).unwrap();
        let span = info_span!("rpc", trace_id = trace.trace_id());
        note(&span, trace);
        span
    }

    #[test]
    fn without_a_collector_a_trace_is_passed_on_as_it_came() {
        without_collector(|| {
            let name = HeaderName::from_static(TRACEPARENT);
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(PARENT))]);
            let span = noting_span(&headers);
            assert_eq!(sent_in(&span).as_deref(), Some(PARENT));
            assert_eq!(trace_id(&span).as_deref(), Some(&PARENT[3..35]));
            let within = span.in_scope(|| info_span!("part of it"));
            assert_eq!(sent_in(&within).as_deref(), Some(PARENT), "what is within a span is part of its trace");
        });
    }

    #[test]
    fn without_a_collector_a_request_without_a_trace_begins_one() {
        without_collector(|| {
            let span = noting_span(&HeaderMap::new());
            let sent = sent_in(&span).unwrap();
            assert_eq!(trace_id(&span).as_deref(), Some(&sent[3..35]));
            assert_ne!(sent_in(&noting_span(&HeaderMap::new())), Some(sent));
            assert_eq!(sent_in(&Span::none()), None);
        });
    }

    #[test]
    fn where_spans_are_sent_nothing_is_passed_on_beside_them() {
        with_unsampled_spans(|| assert_eq!(passed_on(&HeaderMap::new()), None));
        assert_eq!(passed_on(&HeaderMap::new()), None, "nor without telemetry");
    }

    #[test]
    fn outside_of_any_span_there_is_no_traceparent() {
        with_unsampled_spans(|| assert_eq!(sent_in(&Span::none()), None));
    }
}
