//! Finds the route of a request, and makes what happens to it visible by the name of that route: a span, child of the
//! caller's, a measurement, and the body of a problem.

use super::metrics::Metrics;
use crate::{
    gateway::Gateway,
    problem::{self, Refusal},
    routes::{Lookup, Route},
    trace_id::{HEADER, TraceId},
};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use stampede_chassis::telemetry;
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Instant};
use tracing::{Instrument, Span, error_span, field::Empty};

/// What the layer works with.
#[derive(Clone)]
pub struct Observer {
    /// Knows the routes.
    pub gateway: Arc<Gateway>,
    /// Takes the measurements.
    pub metrics: Metrics,
}

/// Lets a request through to its route, which is then in its extensions. Names it, and writes the name into the answer.
pub async fn observe(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = find(&observer.gateway, &request);
    let span = span_of(route.as_ref().map_or(method.as_str(), |route| &route.name), &request);
    let trace_id = TraceId::of(&span);
    request.extensions_mut().insert(trace_id.clone());
    let (route, mut response) = match route {
        Ok(route) => {
            request.extensions_mut().insert(Arc::clone(&route));
            (Some(route), next.run(request).instrument(span.clone()).await)
        }
        Err(refusal) => (None, refusal.into_response()),
    };
    span.in_scope(|| problem::write_body(&mut response, &trace_id));
    response.headers_mut().insert(HEADER, trace_id.header());
    record_status(&span, response.status());
    observer.metrics.record(&method, route.as_deref(), response.status(), started.elapsed());
    response
}

fn find(gateway: &Gateway, request: &Request) -> Result<Arc<Route>, Refusal> {
    let path = request.uri().path();
    match gateway.table.find(request.method(), path) {
        Lookup::Found(route) => Ok(route),
        Lookup::WrongMethod(allow) => Err(Refusal::method_not_allowed(allow)),
        Lookup::Unknown => Err(Problem::new(Reason::UnknownPath, format!("there is nothing under {path}")).into()),
    }
}

fn span_of(name: &str, request: &Request) -> Span {
    // Of the highest level, so that no log filter takes the trace's id from the lines that it lets through.
    let span = error_span!(
        "http",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.response.status_code = Empty,
        trace_id = Empty,
    );
    telemetry::adopt_parent(&span, request.headers());
    span
}

/// A span is in error when the server failed, not when it refused.
fn record_status(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
