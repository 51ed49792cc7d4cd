//! One call: from the HTTP request of a route to the HTTP response, through the service that answers it.

use super::{
    answer,
    codec::DynamicCodec,
    header, idempotency,
    rendering::{Rendering, Renderings},
    request, response, stream,
};
use crate::{
    acts::Acts,
    auth::UntilEnd,
    grpc::BytesCodec,
    hold::newest,
    routes::Rpc,
    trace_id::TraceId,
    upstream::{Outgoing, Upstream},
};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending},
};
use http::{HeaderMap, HeaderValue, Uri};
use prost::Message;
use stampede_chassis::{Block, Deadline, Identity};
use stampede_status::Problem;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A parsed request on its way to a service.
#[derive(Debug)]
pub struct Call<'r> {
    /// Its method.
    pub rpc: &'r Arc<Rpc>,
    /// The caller; `None` without a token.
    pub caller: Option<&'r Identity>,
    /// The address that it is from, as far as that is known.
    pub block: Option<Block>,
    /// Names the request in problems.
    pub trace_id: &'r TraceId,
    /// Path and query.
    pub uri: &'r Uri,
    pub headers: &'r HeaderMap,
    /// The `Cache-Control` of the answer, if it may be kept.
    pub cache_control: Option<&'r HeaderValue>,
    pub body: &'r [u8],
}

/// Turns HTTP/JSON requests into gRPC calls and their answers back.
pub struct Transcoder {
    upstream: Arc<Upstream>,
    acts: Arc<Acts>,
    draining: CancellationToken,
    renderings: Arc<Renderings>,
}

impl Transcoder {
    /// Sends the calls that `acts` admits to `upstream`; open streams end when `draining` is cancelled.
    pub fn new(upstream: Arc<Upstream>, acts: Arc<Acts>, draining: CancellationToken) -> Self {
        Self { upstream, acts, draining, renderings: Arc::default() }
    }

    /// Makes the call and renders the answer. A stream ends with `end`, that of its caller's session.
    pub async fn call(&self, call: Call<'_>, end: Option<BoxFuture<'static, Problem>>) -> Result<Response, Problem> {
        let mut message = request::assemble(call.rpc, call.uri, call.body)?;
        header::apply(call.rpc, call.headers, &mut message)?;
        idempotency::apply(call.rpc, call.headers, &mut message)?;
        // Only now, with the whole message: an order is identified by its request_id, which may come from the body or a
        // header.
        let tracker = self.acts.call(call.rpc.grpc_path.as_str(), call.caller, call.block, &message).await?;
        let deadline = self.upstream.deadline(Deadline::from_headers(call.headers));
        let outgoing = Outgoing { rpc: call.rpc, caller: call.caller, deadline };
        if call.rpc.streaming {
            let request = Bytes::from(message.encode_to_vec());
            let messages = self.upstream.open(outgoing, request, BytesCodec).await?;
            let (renderings, rpc) = (Arc::clone(&self.renderings), Arc::clone(call.rpc));
            let messages = messages.map(move |message| renderings.of(&rpc, &message?).map_err(Status::from));
            let messages = UntilEnd::new(messages, end.unwrap_or_else(|| pending().boxed()));
            let messages = newest(messages, |message: &Arc<Rendering>| message.subject.clone());
            return Ok(events(&call).response(messages, self.draining.clone()));
        }
        let answer = self.upstream.unary(outgoing, message, DynamicCodec).await;
        if let Some(tracker) = tracker {
            tracker.record(answer.as_deref()).await;
        }
        let json = response::of_bytes(call.rpc, &answer?)?;
        Ok(answer::json(json, call.cache_control, call.headers))
    }
}

fn events(call: &Call<'_>) -> stream::Events {
    stream::Events { trace_id: call.trace_id.clone(), last_seen: stream::last_seen(call.headers) }
}
