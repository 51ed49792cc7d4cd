//! A span for each call, child of the caller's. Must not log: what went wrong is logged by whoever
//! knows why.

use futures_util::FutureExt;
use http::{Request, Response};
use tonic::{Code, body::Body};
use tracing::{Instrument, Span, error_span, field::Empty};

use super::{Middleware, code_in, is_probe};
use crate::telemetry;

/// Puts a span around each call but health probes.
#[derive(Clone)]
pub(crate) struct Trace;

impl Middleware for Trace {
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let span = if is_probe(&request) { Span::none() } else { span_of(&request) };
        let answer = span.in_scope(|| next(request));
        answer.inspect(record_failure).instrument(span)
    }
}

fn span_of(request: &Request<Body>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    // Of the highest level, so that no log filter takes the trace's id from the lines that it lets through.
    let span =
        error_span!("rpc", otel.name = method, otel.kind = "server", otel.status_code = Empty, trace_id = Empty,);
    telemetry::adopt_parent(&span, request.headers());
    span
}

/// A span is in error when the server failed, not when it refused.
fn record_failure(response: &Response<Body>) {
    let failed = matches!(
        code_in(response.headers()),
        Some(Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss)
    );
    if failed {
        Span::current().record("otel.status_code", "ERROR");
    }
}
