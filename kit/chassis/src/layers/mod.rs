//! What every call goes through on the server's side, from the outside in: trace, metrics, bound,
//! deadline, drain, panics, and refusals that nobody explained.
//!
//! Each layer is a [`Middleware`]: what it does at once (before the first `await`) happens in
//! order, before anything of the layers around it is waited for. The deadline relies on that.

mod catch_panic;
mod deadline;
mod drain;
mod explain;
mod metrics;
mod shed;
mod trace;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use tonic::{Code, body::Body};
use tower::{Layer, Service};

pub(crate) use catch_panic::CatchPanic;
pub(crate) use deadline::EnforceDeadline;
pub(crate) use drain::EndStreams;
pub(crate) use explain::Explain;
pub(crate) use metrics::Measure;
pub(crate) use shed::Shed;
pub(crate) use trace::Trace;

/// One concern of every call.
pub(crate) trait Middleware: Clone + Send + 'static {
    /// Answers the request, as a rule by what `next` answers.
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static;
}

/// A middleware as a tower layer.
#[derive(Clone)]
pub(crate) struct With<M>(pub(crate) M);

impl<M: Middleware, S> Layer<S> for With<M> {
    type Service = Wrapped<M, S>;

    fn layer(&self, inner: S) -> Wrapped<M, S> {
        Wrapped { middleware: self.0.clone(), inner }
    }
}

/// A service with a middleware around it.
#[derive(Clone)]
pub(crate) struct Wrapped<M, S> {
    middleware: M,
    inner: S,
}

impl<M, S> Service<Request<Body>> for Wrapped<M, S>
where
    M: Middleware,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Routes are always ready, so the clone may be called in place of the one that was asked.
        let mut inner = self.inner.clone();
        let next = move |request| inner.call(request).map(|answer| answer.unwrap_or_else(|never| match never {}));
        self.middleware.handle(request, next).map(Ok).boxed()
    }
}

/// Probes must see the truth, and quickly, whatever else goes on; and nobody wants them in a trace.
fn is_probe(request: &Request<Body>) -> bool {
    request.uri().path().starts_with("/grpc.health.v1.Health/")
}

/// The gRPC code, if these headers or trailers carry one.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}
