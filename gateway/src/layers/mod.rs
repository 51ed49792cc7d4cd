//! The layers of every request, from the outside in: its route with span, trace id and metrics, panics, the bound on
//! requests under way, and the caller (which is [`crate::auth`]'s).
//!
//! Like the layers of a service they are one handler and not a stack: what one finds is handed to the next, and nothing
//! is boxed in between.

mod metrics;

pub use self::metrics::Metrics;

use crate::{
    auth::authenticate,
    dispatch::dispatch,
    gateway::Gateway,
    problem::Refusal,
    routes::{Lookup, Route},
    trace_id::{HEADER, TraceId},
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use stampede_chassis::{catch_panic, telemetry};
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Instant};
use tracing::{Instrument, Span, error_span, field::Empty};

/// Answers a request, and makes what happens to it visible by the name of its route: a span, child of the caller's, a
/// measurement, and the body of a problem.
pub async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = find(&gateway, &request);
    let span = span_of(route.as_ref().map_or(method.as_str(), |route| &route.name), &request);
    let trace_id = TraceId::of(&span);
    let (route, outcome) = match route {
        Ok(route) => {
            let answer = catch_panic(admit(&gateway, &route, &trace_id, request));
            let outcome = answer.instrument(span.clone()).await.flatten();
            (Some(route), outcome.map_err(Refusal::from))
        }
        Err(refusal) => (None, Err(refusal)),
    };
    let mut response = span.in_scope(|| outcome.unwrap_or_else(|refusal| refusal.into_response(&trace_id)));
    response.headers_mut().insert(HEADER, trace_id.header());
    record_status(&span, response.status());
    gateway.metrics.record(&method, route.as_deref(), response.status(), started.elapsed());
    response
}

/// Answers a request that has a route, if the bound has room for it and its caller may use the route.
async fn admit(gateway: &Gateway, route: &Route, trace_id: &TraceId, request: Request) -> Result<Response, Problem> {
    let _permit = gateway.shed.admit()?;
    let caller = authenticate(&gateway.auth.tokens, route.access, request.headers())?;
    dispatch(gateway, route, caller.as_ref(), trace_id, request).await
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
