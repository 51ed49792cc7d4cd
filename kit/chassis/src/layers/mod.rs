//! The layers around every call of a server, from the outside in: span, metrics, load shedding, reasons of errors,
//! compression, authorization, deadline and panics. The body of the answer ends when the process drains.
//!
//! They are one service in place of a stack, in which each level costs every call a boxed future and a clone of the
//! levels below. Code before the first `await` runs as the call arrives, before the server polls anything else. The
//! deadline relies on that.

mod compression;
mod drain;
mod explain;
mod metrics;
mod panics;
mod shed;
mod trace;

use self::{drain::Draining, explain::explain, metrics::Call, shed::Shed};
use crate::{Deadline, guard::Guard};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use opentelemetry::metrics::Histogram;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service;
use tracing::Instrument;

pub use self::panics::catch_panic;

/// Deadline of a call without one.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Longest deadline of a call: a request that never arrives whole holds a permit for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// The routes of a process with the layers around them.
#[derive(Clone)]
pub(crate) struct Layered {
    routes: Routes,
    guard: Guard,
    duration: Histogram<f64>,
    shed: Shed,
    draining: Arc<CancellationToken>,
}

impl Layered {
    /// Admits at most `max_calls` at a time that `guard` authorizes, open streams not counted, and ends streams when
    /// `draining` is cancelled.
    pub(crate) fn new(routes: Routes, guard: Guard, max_calls: usize, draining: CancellationToken) -> Layered {
        let (duration, shed) = (metrics::duration(), Shed::over(max_calls));
        Layered { routes, guard, duration, shed, draining: Arc::new(draining) }
    }

    /// Fails a call with DEADLINE_EXCEEDED once its deadline passes (tonic alone would answer CANCELLED). The deadline
    /// bounds the time until the answer begins: a stream may go on.
    ///
    /// The handler is dropped at the deadline, so work that must not stop half way belongs on a task of its own.
    fn handle(&mut self, mut request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<> {
        // Read at once, so that it expires before tonic's own timer, which starts after this.
        let theirs = Deadline::from_headers(request.headers()).unwrap_or_else(|| Deadline::after(DEFAULT_WAIT));
        let deadline = theirs.min(Deadline::after(LONGEST_WAIT));
        request.extensions_mut().insert(deadline);
        let answer = match self.refusal(&mut request) {
            Some(refusal) => Err(refusal),
            None => Ok(deadline.bound(catch_panic(self.routes.call(request)))),
        };
        async move {
            match answer {
                Ok(answer) => match answer.await.flatten() {
                    Ok(Ok(response)) => response,
                    Err(problem) => Status::from(problem).into_http(),
                },
                Err(refusal) => refusal,
            }
        }
    }

    /// Returns the refusal of a compressed or unauthorized call; `None` for any other.
    fn refusal(&self, request: &mut Request<Body>) -> Option<Response<Body>> {
        if let Some(refusal) = compression::refusal(request) {
            return Some(refusal);
        }
        self.guard.admit(request).err().map(|problem| Status::from(problem).into_http())
    }
}

impl Service<Request<Body>> for Layered {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let draining = self.draining.clone();
        if is_probe(&request) {
            let answer = self.handle(request);
            return answer.map(|answer| Ok(answer.map(|body| Body::new(Draining::new(body, draining))))).boxed();
        }
        let span = trace::span_of(&request);
        let call = Call::begin(&request, &self.duration);
        // In the span of the call already: routes may run code and make spans of their own before they are awaited.
        let admitted = span.in_scope(|| self.shed.admit().map(|permit| (permit, self.handle(request))));
        let answer = async move {
            let answer = match admitted {
                // The permit is released when the answer begins, so an open stream holds none.
                Ok((_permit, answer)) => explain(answer.await),
                Err(problem) => Status::from(problem).into_http(),
            };
            let answer = call.follow(answer.map(|body| Draining::new(body, draining)));
            trace::record_failure(&answer);
            Ok(answer)
        };
        answer.instrument(span).boxed()
    }
}

/// Health probes are never shed, and get no span.
fn is_probe(request: &Request<Body>) -> bool {
    request.uri().path().starts_with("/grpc.health.v1.Health/")
}

/// Returns the gRPC code in these headers or trailers, if any.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Extension, Router, routing::any};

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_call_over_the_bound_is_refused_and_a_probe_is_not() {
        let (call, probe) = ("/a.B/C", "/grpc.health.v1.Health/Check");
        let router = Router::new().route(call, any(async || ())).route(probe, any(async || ()));
        let mut layered = Layered::new(Routes::from(router), Guard::Open, 1, CancellationToken::new());
        let under_way = layered.call(request(call));
        let refused = layered.call(request(call)).await.unwrap();
        assert_eq!(code_in(refused.headers()), Some(Code::Unavailable));
        let probed = layered.call(request(probe)).await.unwrap();
        assert_eq!(code_in(probed.headers()), None);
        drop(under_way);
        let admitted = layered.call(request(call)).await.unwrap();
        assert_eq!(code_in(admitted.headers()), None);
    }

    #[tokio::test]
    async fn nobody_waits_for_longer_than_a_call_may_take() {
        let answer = |Extension(deadline): Extension<Deadline>| async move {
            [("x-left-s", deadline.remaining().as_secs().to_string())]
        };
        let router = Router::new().route("/a.B/C", any(answer));
        let mut layered = Layered::new(Routes::from(router), Guard::Open, 1, CancellationToken::new());
        let mut patient = request("/a.B/C");
        patient.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("1H"));
        let answer = layered.call(patient).await.unwrap();
        let left: u64 = answer.headers()["x-left-s"].to_str().unwrap().parse().unwrap();
        assert!((DEFAULT_WAIT.as_secs()..=LONGEST_WAIT.as_secs()).contains(&left), "{left}");
    }
}
