//! One call: from the HTTP request of a route to the HTTP response, through the service that answers it.

use super::{answer, codec::DynamicCodec, header, idempotency, rendering::Rendering, request, response, stream};
use crate::{
    acts::Acts,
    auth::UntilEnd,
    grpc::BytesCodec,
    hold::{Permit, SharedStreams, newest},
    routes::Rpc,
    shared_reads::SharedReads,
    trace_id::TraceId,
    upstream::{Outgoing, Upstream},
};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending},
    stream::{BoxStream, Stream},
};
use http::{HeaderMap, HeaderValue, Uri, header::AUTHORIZATION};
use prost::Message;
use prost_reflect::DynamicMessage;
use stampede_chassis::{Block, Deadline, Identity};
use stampede_status::Problem;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// A parsed request on its way to a service.
#[derive(Debug)]
pub struct Call<'r> {
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
    /// Whether the method is open to all, so that the answer is the same for all.
    pub is_public: bool,
}

impl Call<'_> {
    /// Returns whether it may be answered as another one was: a read that is open to all, without a token. Who sends
    /// one, as operators and tests do, reads what they have written.
    pub fn is_shareable(&self) -> bool {
        let is_read = self.rpc.read_only && !self.rpc.streaming;
        is_read && self.is_public && !self.headers.contains_key(AUTHORIZATION)
    }
}

/// Turns HTTP/JSON requests into gRPC calls and their answers back.
pub struct Transcoder {
    upstream: Arc<Upstream>,
    acts: Arc<Acts>,
    draining: CancellationToken,
    shared: SharedStreams<Arc<Rendering>>,
    watcher_stall: Duration,
}

type Messages = BoxStream<'static, Result<Arc<Rendering>, Status>>;

impl Transcoder {
    /// Sends the calls that `acts` admits to `upstream`. Open streams end when `draining` is cancelled, and one whose
    /// watcher takes nothing for `watcher_stall`.
    pub fn new(upstream: Arc<Upstream>, acts: Arc<Acts>, draining: CancellationToken, watcher_stall: Duration) -> Self {
        Self { upstream, acts, draining, shared: SharedStreams::new(watcher_stall), watcher_stall }
    }

    /// Makes the call and renders the answer. A stream ends with `end`, that of its caller's session.
    pub async fn call(&self, call: Call<'_>, end: Option<BoxFuture<'static, Problem>>) -> Result<Response, Problem> {
        let message = message_of(&call)?;
        // Only now, with the whole message: an order is identified by its request_id, which may come from the body or a
        // header.
        let tracker = self.acts.call(call.rpc.grpc_path.as_str(), call.caller, call.block, &message).await?;
        let deadline = self.upstream.deadline(Deadline::from_headers(call.headers));
        let outgoing = Outgoing { rpc: call.rpc, caller: call.caller, deadline };
        if call.rpc.streaming {
            let request = Bytes::from(message.encode_to_vec());
            let messages = self.messages(&call, outgoing, request, end.unwrap_or_else(|| pending().boxed())).await?;
            return Ok(events(&call).response(messages, self.draining.clone()));
        }
        let answer = self.upstream.unary(outgoing, message, DynamicCodec).await;
        if let Some(tracker) = tracker {
            tracker.record(answer.as_deref()).await;
        }
        let json = response::of_bytes(call.rpc, &answer?)?;
        Ok(answer::json(json.into(), call.cache_control, call.headers))
    }

    /// Answers a shareable call, which makes none of its own where another is under way or just over. Returns its
    /// permit with the answer. No act is a read, so there is no limit to ask.
    pub async fn read(
        &self,
        reads: &SharedReads,
        call: Call<'_>,
        permit: Permit,
    ) -> Result<(Response, Permit), Problem> {
        let request = Bytes::from(message_of(&call)?.encode_to_vec());
        let deadline = self.upstream.deadline(Deadline::from_headers(call.headers));
        let work = read_for_all(Arc::clone(&self.upstream), Arc::clone(call.rpc), request.clone());
        let (json, permit) = deadline.bound(reads.answer(&call.rpc.label, request, work, permit)).await??;
        Ok((answer::json(json, call.cache_control, call.headers), permit))
    }

    /// Opens the stream of a call, or joins one that is the same for all.
    async fn messages(
        &self,
        call: &Call<'_>,
        outgoing: Outgoing<'_>,
        request: Bytes,
        end: BoxFuture<'static, Problem>,
    ) -> Result<Messages, Problem> {
        if call.is_public {
            let open = || open_for_all(Arc::clone(&self.upstream), Arc::clone(call.rpc), request.clone());
            let watcher = self.shared.join(call.rpc, &request, open, subject);
            outgoing.deadline.bound(watcher.opened()).await??;
            return Ok(UntilEnd::new(watcher.messages().boxed(), end).boxed());
        }
        let messages = rendered(self.upstream.open(outgoing, request, BytesCodec).await?, Arc::clone(call.rpc));
        Ok(newest(UntilEnd::new(messages.boxed(), end), subject, self.watcher_stall).boxed())
    }
}

/// Returns the request of a call, from all the places where its fields may be.
fn message_of(call: &Call<'_>) -> Result<DynamicMessage, Problem> {
    let mut message = request::assemble(call.rpc, call.uri, call.body)?;
    header::apply(call.rpc, call.headers, &mut message)?;
    idempotency::apply(call.rpc, call.headers, &mut message)?;
    Ok(message)
}

/// Reads for nobody in particular, with all the time that a call may take. Returns the answer as JSON.
async fn read_for_all(upstream: Arc<Upstream>, rpc: Arc<Rpc>, request: Bytes) -> Result<Bytes, Problem> {
    let outgoing = Outgoing { rpc: &rpc, caller: None, deadline: upstream.deadline(None) };
    let answer = upstream.unary(outgoing, request, BytesCodec).await?;
    // Without the spare room of a buffer: what is kept takes as much memory as it is counted for.
    Ok(response::of_bytes(&rpc, &answer)?.into_boxed_slice().into())
}

/// Opens a stream for nobody in particular.
async fn open_for_all(
    upstream: Arc<Upstream>,
    rpc: Arc<Rpc>,
    request: Bytes,
) -> Result<impl Stream<Item = Result<Arc<Rendering>, Status>> + Send + 'static, Problem> {
    let outgoing = Outgoing { rpc: &rpc, caller: None, deadline: upstream.deadline(None) };
    let messages = upstream.open(outgoing, request, BytesCodec).await?;
    Ok(rendered(messages, rpc))
}

fn rendered(
    messages: Streaming<Bytes>,
    rpc: Arc<Rpc>,
) -> impl Stream<Item = Result<Arc<Rendering>, Status>> + Send + 'static {
    messages.map(move |message| Ok(Arc::new(Rendering::of(&rpc, &message?)?)))
}

fn subject(message: &Arc<Rendering>) -> Option<String> {
    message.subject.clone()
}

fn events(call: &Call<'_>) -> stream::Events {
    stream::Events { trace_id: call.trace_id.clone(), last_seen: stream::last_seen(call.headers) }
}
