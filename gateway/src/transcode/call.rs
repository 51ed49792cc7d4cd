//! One call: from the HTTP request of a route to the HTTP response, through the service that answers it.

use super::{answer, codec::DynamicCodec, idempotency, request, response, stream};
use crate::{acts::Acts, auth::UntilEnd, hold::newest, routes::Rpc, trace_id::TraceId};
use axum::response::Response;
use futures_util::{
    FutureExt,
    future::{BoxFuture, pending},
};
use http::{HeaderMap, HeaderValue, Uri};
use prost_reflect::DynamicMessage;
use stampede_chassis::{
    Block, Deadline, Identity, MeshChannel,
    identity::{ROLE_METADATA, USER_METADATA},
};
use stampede_status::{Problem, Reason};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// The role of a caller without a token. It is no role of any service, so it has no rights.
const ANONYMOUS: &str = "anonymous";

/// Largest answer of a service, in bytes. The largest that the contract allows is a list of 100 events of 100 items
/// with a gift, whose titles have 200 characters each: 18 MB, if all of them take four bytes.
const MAX_ANSWER_BYTES: usize = 24 << 20;

/// The channels by the full name of the service.
pub type Upstreams = HashMap<String, MeshChannel>;

/// The limits of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Longest wait for a unary answer, and for the start of a stream.
    pub deadline: Duration,
}

/// One request, checked and read, on its way to a service.
#[derive(Debug)]
pub struct Call<'r> {
    /// How its method is called.
    pub rpc: &'r Arc<Rpc>,
    /// Who calls; `None` without a token.
    pub caller: Option<&'r Identity>,
    /// The address that it is from, as far as that is known.
    pub block: Option<Block>,
    /// Names the request in problems.
    pub trace_id: &'r TraceId,
    /// Path and query.
    pub uri: &'r Uri,
    pub headers: &'r HeaderMap,
    /// How the answer may be kept, if it may.
    pub cache_control: Option<&'r HeaderValue>,
    pub body: &'r [u8],
}

/// Turns HTTP/JSON requests into gRPC calls and their answers back.
pub struct Transcoder {
    upstreams: Upstreams,
    acts: Arc<Acts>,
    limits: CallLimits,
    draining: CancellationToken,
}

impl Transcoder {
    /// Calls through `upstreams` what `acts` admits; open streams end when `draining` is cancelled.
    pub fn new(upstreams: Upstreams, acts: Arc<Acts>, limits: CallLimits, draining: CancellationToken) -> Self {
        Self { upstreams, acts, limits, draining }
    }

    /// Makes the call and renders what comes back. A stream ends with `end`, that of its caller's session.
    pub async fn call(&self, call: Call<'_>, end: Option<BoxFuture<'static, Problem>>) -> Result<Response, Problem> {
        let mut message = request::assemble(call.rpc, call.uri, call.body)?;
        idempotency::apply(call.rpc, call.headers, &mut message)?;
        // The message is whole now: an order is known by its request_id, wherever that was given.
        let tab = self.acts.call(call.rpc.grpc_path.as_str(), call.caller, call.block, &message).await?;
        let request = Request::from_parts(metadata(&call)?, http::Extensions::default(), message);
        if call.rpc.streaming {
            return self.stream(&call, request, end.unwrap_or_else(|| pending().boxed())).await;
        }
        let answer = self.unary(&call, request).await;
        if let Some(tab) = tab {
            tab.close(answer.as_ref()).await;
        }
        let json = response::to_json(call.rpc, &answer?)?;
        Ok(answer::json(json, call.cache_control, call.headers))
    }

    async fn unary(&self, call: &Call<'_>, request: Request<DynamicMessage>) -> Result<DynamicMessage, Problem> {
        let mut grpc = self.client(call.rpc)?;
        let codec = DynamicCodec::new(call.rpc.output.clone());
        let answer = self
            .in_time(call, async {
                grpc.ready().await?;
                grpc.unary(request, call.rpc.grpc_path.clone(), codec).await
            })
            .await?;
        Ok(answer.into_inner())
    }

    async fn stream(
        &self,
        call: &Call<'_>,
        request: Request<DynamicMessage>,
        end: BoxFuture<'static, Problem>,
    ) -> Result<Response, Problem> {
        let mut grpc = self.client(call.rpc)?;
        let codec = DynamicCodec::new(call.rpc.output.clone());
        let answer = self
            .in_time(call, async {
                grpc.ready().await?;
                grpc.server_streaming(request, call.rpc.grpc_path.clone(), codec).await
            })
            .await?;
        let events = stream::Events {
            rpc: Arc::clone(call.rpc),
            trace_id: call.trace_id.clone(),
            last_seen: stream::last_seen(call.headers),
        };
        Ok(events.response(newest(UntilEnd::new(answer.into_inner(), end)), self.draining.clone()))
    }

    fn client(&self, rpc: &Rpc) -> Result<Grpc<MeshChannel>, Problem> {
        let channel = self.upstreams.get(&rpc.service);
        let channel = channel.ok_or_else(|| Problem::unavailable(short_name(rpc), "no upstream is configured"))?;
        let channel = if rpc.streaming { channel.for_streams() } else { channel.clone() };
        Ok(Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// Bounds the wait, also by the time that the caller has (`grpc-timeout`) if that is less. The channel sends the
    /// deadline along to the service.
    async fn in_time<T>(&self, call: &Call<'_>, work: impl Future<Output = Result<T, Status>>) -> Result<T, Problem> {
        let ours = Deadline::after(self.limits.deadline);
        let deadline = Deadline::from_headers(call.headers).map_or(ours, |theirs| theirs.min(ours));
        let outcome = deadline.bound(work).await?;
        outcome.map_err(|status| failure(&status))
    }
}

/// What a failure of a service is to a caller of the gateway.
pub(super) fn failure(status: &Status) -> Problem {
    let problem = Problem::from_status(status);
    match problem.reason() {
        // The route is in the contract of the gateway, so the path and the method are right: the service is older.
        Reason::MethodNotAllowed => Problem::new(Reason::NotImplemented, "the service does not offer this yet"),
        // The library's word for an answer that is too large. A service's own refusal of a request has a reason, and
        // nothing internal.
        Reason::BodyTooLarge if problem.internal_detail().is_some() => {
            Problem::internal_error(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes: {status}"))
        }
        _ => problem,
    }
}

/// `order` of `stampede.order.v1.OrderService`.
fn short_name(rpc: &Rpc) -> &str {
    rpc.service.split('.').nth(1).unwrap_or(&rpc.service)
}

/// Returns the metadata for the service. It is built from the token alone: none of the caller's headers is forwarded.
fn metadata(call: &Call<'_>) -> Result<MetadataMap, Problem> {
    let mut metadata = MetadataMap::with_capacity(8);
    match call.caller {
        Some(identity) => {
            metadata.insert(USER_METADATA, ascii(&identity.user_id)?);
            metadata.insert(ROLE_METADATA, AsciiMetadataValue::from_static(identity.role.as_str()));
        }
        None => {
            metadata.insert(ROLE_METADATA, AsciiMetadataValue::from_static(ANONYMOUS));
        }
    }
    Ok(metadata)
}

fn ascii(text: &str) -> Result<AsciiMetadataValue, Problem> {
    AsciiMetadataValue::try_from(text).map_err(Problem::internal_error)
}
