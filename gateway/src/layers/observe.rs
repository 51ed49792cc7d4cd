//! Finds the route of a request, and makes what happens to it visible by the name of that route: a span, child of the
//! caller's, a measurement, and the body of a problem.

use super::metrics::Metrics;
use crate::{
    gateway::Gateway,
    problem::{self, Refusal},
    request_id::RequestId,
    routes::{Lookup, Route},
};
use axum::{
    extract::{Extension, Request, State},
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

/// Lets a request through to its route, which is then in its extensions.
pub async fn observe(
    State(observer): State<Observer>,
    Extension(request_id): Extension<RequestId>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = match find(&observer.gateway, &request) {
        Ok(route) => route,
        Err(refusal) => {
            let mut response = refusal.into_response();
            problem::write_body(&mut response, &request_id);
            observer.metrics.record(&method, None, response.status(), started.elapsed());
            return response;
        }
    };
    let span = span_of(&route, &request, &request_id);
    request.extensions_mut().insert(Arc::clone(&route));
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| problem::write_body(&mut response, &request_id));
    record_status(&span, response.status());
    observer.metrics.record(&method, Some(&route), response.status(), started.elapsed());
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

fn span_of(route: &Route, request: &Request, request_id: &RequestId) -> Span {
    // Of the highest level, so that no log filter takes the request's id from the lines that it lets through.
    let span = error_span!(
        "http",
        otel.name = route.name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.response.status_code = Empty,
        request.id = request_id.as_str(),
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
