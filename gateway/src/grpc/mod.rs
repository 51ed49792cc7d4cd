//! gRPC, gRPC-Web and Connect (unary) on the gateway's port, for the methods that it has over HTTP, with the same
//! access and the same bounds.
//!
//! Messages are passed on as they came; one is decoded only where a bound needs a field of it, or where the caller
//! speaks JSON. A method that cannot be called from outside is answered like one that does not exist. Health and
//! reflection (`own`) show what can be called from outside, and nothing else.

mod call;
mod codec;
mod connect;
mod encoding;
mod frame;
mod own;
mod respond;
mod skim;
mod stream;
mod wire;

pub use self::{codec::BytesCodec, own::Own, wire::Wire};

use crate::{
    auth::authenticate,
    gateway::Gateway,
    layers::{record_status, span_of},
    routes::{Endpoint, Route},
    trace_id::HEADER,
};
use axum::{extract::Request, response::Response};
use http::{HeaderValue, Version};
use opentelemetry::StringValue;
use stampede_chassis::catch_panic;
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Instant};
use tracing::Instrument;

/// The target of a call.
enum Target {
    /// A method of a service behind the gateway.
    Method(Arc<Route>),
    /// A method of the gateway itself, by its path.
    Own(&'static str),
}

/// Answers a call, with a span and a measurement under the path of its method.
pub async fn answer(gateway: &Gateway, wire: Wire, request: Request) -> Response {
    let started = Instant::now();
    let target = find(gateway, wire, request.uri().path());
    let is_trusted = gateway.holds.trusts(request.extensions());
    // Only a known path becomes a label, since callers can invent any.
    let path = target.as_ref().map(Target::path);
    let name = path.as_ref().map_or("unknown method", StringValue::as_str);
    let (span, trace_id) = span_of(name, request.headers(), is_trusted);
    let answer = catch_panic(admit(gateway, wire, target.as_ref(), request));
    let outcome = answer.instrument(span.clone()).await.flatten();
    let status = match &outcome {
        Ok(response) => response.status(),
        Err(problem) => problem.http(),
    };
    let mut response = span.in_scope(|| outcome.unwrap_or_else(|problem| respond::refuse(wire, problem)));
    response.headers_mut().insert(HEADER, trace_id.header());
    record_status(&span, status);
    gateway.metrics.record_call(path, status, started.elapsed());
    response
}

fn find(gateway: &Gateway, wire: Wire, path: &str) -> Option<Target> {
    if wire == Wire::Grpc
        && let Some(path) = own::find(path)
    {
        return Some(Target::Own(path));
    }
    gateway.table.find_call(path).map(Target::Method)
}

/// Returns the media types that calls of the method of this path have over this version of HTTP, as a header lists
/// them; `None` where there is no such method.
pub fn media_types(gateway: &Gateway, path: &str, version: Version) -> Option<HeaderValue> {
    let is_grpc = version == Version::HTTP_2;
    if own::find(path).is_some() {
        return is_grpc.then(|| HeaderValue::from_static(wire::GRPC));
    }
    let is_stream = gateway.table.find_call(path)?.is_stream();
    let media_types = wire::media_types(is_grpc, !is_stream);
    Some(HeaderValue::from_str(&media_types).expect("media types are header text"))
}

impl Target {
    fn path(&self) -> StringValue {
        match self {
            Self::Method(route) => match &route.endpoint {
                Endpoint::Rpc(rpc) => Arc::clone(&rpc.label).into(),
                Endpoint::Native(_) => Arc::clone(&route.template).into(),
            },
            Self::Own(path) => (*path).into(),
        }
    }
}

/// Answers a call if its caller may make it.
async fn admit(gateway: &Gateway, wire: Wire, target: Option<&Target>, request: Request) -> Result<Response, Problem> {
    match target {
        Some(Target::Method(route)) => {
            let caller = authenticate(&gateway.auth, route.access, request.headers())?;
            // On the heap: with the call in it, it is larger than all that is around it.
            Box::pin(call::dispatch(gateway, wire, route, caller.as_ref(), request)).await
        }
        Some(Target::Own(_)) => gateway.own.answer(&gateway.holds, request).await,
        None => Err(no_such_method()),
    }
}

fn no_such_method() -> Problem {
    Problem::new(Reason::MethodNotAllowed, "there is no such method")
}
