//! The layers of every request, from the outside in: its route with span, trace id and metrics, panics, and
//! authentication ([`crate::auth`]). The permits of a request are acquired behind them, once its body is there
//! ([`crate::hold`]).
//!
//! Like the layers of a service they are one handler and not a stack: each hands its result to the next, and nothing is
//! boxed in between.

mod metrics;

pub use self::metrics::Metrics;

use crate::{
    auth::{Caller, authenticate},
    dispatch::dispatch,
    gateway::Gateway,
    grpc::{self, Wire},
    problem::Refusal,
    routes::{Lookup, Route},
    trace_id::{HEADER, TraceId},
    transcode::has_ended,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use stampede_chassis::{catch_panic, telemetry};
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Instant};
use tracing::{Instrument, Span, error_span, field::Empty};

/// Answers a request of any protocol.
pub async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    // Over HTTP/2 the server announces its drain by GOAWAY.
    let leaves = request.version() < Version::HTTP_2 && gateway.draining.is_cancelled();
    let mut response = match Wire::of(&request) {
        Some(wire) => grpc::answer(&gateway, wire, request).await,
        None => answer_http(&gateway, request).await,
    };
    if leaves {
        // The client sends its next request over another connection.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers a request of HTTP/JSON, observed under the name of its route: a span, child of a trusted caller's, a
/// measurement, and the body of a problem.
async fn answer_http(gateway: &Gateway, request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let presented = request.headers().contains_key(header::AUTHORIZATION);
    let route = find(gateway, &request);
    let is_trusted = gateway.holds.trusts(request.extensions());
    let name = route.as_ref().map_or(method.as_str(), |route| route.name.as_str());
    let (span, trace_id) = span_of(name, request.headers(), is_trusted);
    let (route, outcome) = match route {
        Ok(route) => {
            let answer = catch_panic(admit(gateway, &route, &trace_id, request));
            let outcome = answer.instrument(span.clone()).await.flatten();
            (Some(route), outcome.map_err(|problem| Refusal::from(problem).presented(presented)))
        }
        Err(Unrouted::Options(allow)) => (None, Ok((StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response())),
        Err(Unrouted::Refused(refusal)) => (None, Err(refusal)),
    };
    let refuse = |refusal: Refusal| span.in_scope(|| refusal.into_response(&trace_id));
    let mut response = outcome.unwrap_or_else(refuse);
    response.headers_mut().insert(HEADER, trace_id.header());
    // Keeps browsers from reading an answer that quotes a request as anything but JSON.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    record_status(&span, response.status());
    gateway.metrics.record(&method, route.as_deref(), response.status(), started.elapsed());
    response
}

/// Answers a request that has a route, if its caller may use it.
async fn admit(gateway: &Gateway, route: &Route, trace_id: &TraceId, request: Request) -> Result<Response, Problem> {
    if route.is_stream() && has_ended(request.headers()) {
        // At this `EventSource` stops reconnecting.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let caller = identify(gateway, route, &request)?;
    // On the heap: with the call in it, it is larger than all that is around it.
    Box::pin(dispatch(gateway, route, caller.as_ref(), trace_id, request)).await
}

/// Returns the caller: by a ticket where a stream came with one, else by a token.
fn identify(gateway: &Gateway, route: &Route, request: &Request) -> Result<Option<Caller>, Problem> {
    if route.is_stream()
        && let Some(caller) = gateway.tickets.caller(route.access, request.uri())?
    {
        return gateway.auth.unless_revoked(caller).map(Some);
    }
    authenticate(&gateway.auth, route.access, request.headers())
}

/// The answer to a request that leads to no route.
enum Unrouted {
    Refused(Refusal),
    /// The methods of the path, for an OPTIONS.
    Options(HeaderValue),
}

fn find(gateway: &Gateway, request: &Request) -> Result<Arc<Route>, Unrouted> {
    let path = request.uri().path();
    Err(match gateway.table.find(request.method(), path) {
        Lookup::Found(route) => return Ok(route),
        Lookup::Options(allow) => Unrouted::Options(allow),
        Lookup::WrongMethod(allow) => Unrouted::Refused(Refusal::method_not_allowed(allow)),
        Lookup::Unknown => unknown(gateway, request),
    })
}

/// Answers a path without an HTTP/JSON route. It may be that of a gRPC method, with a request that is no call.
fn unknown(gateway: &Gateway, request: &Request) -> Unrouted {
    let path = request.uri().path();
    let Some(media_types) = grpc::media_types(gateway, path, request.version()) else {
        return Unrouted::Refused(Problem::new(Reason::UnknownPath, format!("there is nothing under {path}")).into());
    };
    let allow = HeaderValue::from_static("POST, OPTIONS");
    match *request.method() {
        Method::POST => Unrouted::Refused(Refusal::no_call(media_types)),
        Method::OPTIONS => Unrouted::Options(allow),
        _ => Unrouted::Refused(Refusal::method_not_allowed(allow)),
    }
}

/// Returns the span of a request, a child of a trusted caller's, and the id of its trace. The span has the highest
/// level, so that no log filter removes that id from the lines that it lets through.
pub fn span_of(name: &str, headers: &HeaderMap, is_trusted: bool) -> (Span, TraceId) {
    // An untrusted caller chooses neither the sampling nor the trace id.
    let none = HeaderMap::new();
    if let Some(trace) = telemetry::passed_on(if is_trusted { headers } else { &none }) {
        // This span is not exported: it only puts the trace id into the log.
        let trace_id = TraceId::from(trace.trace_id());
        let span = error_span!("http", otel.name = name, trace_id = trace_id.as_str());
        telemetry::note(&span, trace);
        return (span, trace_id);
    }
    let span = error_span!(
        "http",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.response.status_code = Empty,
        trace_id = Empty,
    );
    if is_trusted {
        telemetry::adopt_parent(&span, headers);
    } else {
        telemetry::link_stranger(&span, headers);
    }
    let trace_id = TraceId::of(&span);
    (span, trace_id)
}

/// Marks a span as failed if the server failed, not if it refused.
pub fn record_status(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
