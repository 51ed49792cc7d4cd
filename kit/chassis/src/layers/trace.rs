//! A span for each call, child of the caller's. Must not log: failures are logged where their cause is known.

use super::code_in;
use crate::telemetry;
use http::{Request, Response};
use tonic::{Code, body::Body};
use tracing::{Span, error_span, field::Empty};

/// Returns the span of a call. It has the highest level, so that every log filter keeps the trace id in the lines that
/// it lets through.
pub(crate) fn span_of(request: &Request<Body>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    if let Some(trace) = telemetry::passed_on(request.headers()) {
        // Without a collector the span only adds the trace id to log lines.
        let span = error_span!("rpc", otel.name = method, trace_id = trace.trace_id());
        telemetry::note(&span, trace);
        return span;
    }
    let span =
        error_span!("rpc", otel.name = method, otel.kind = "server", otel.status_code = Empty, trace_id = Empty,);
    telemetry::adopt_parent(&span, request.headers());
    span
}

/// Marks the current span, that of the call, as failed if the server failed. A refusal is no failure.
pub(crate) fn record_failure(response: &Response<Body>) {
    let failed = matches!(
        code_in(response.headers()),
        Some(Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss)
    );
    if failed {
        Span::current().record("otel.status_code", "ERROR");
    }
}
