//! One call: from the HTTP request of a route to the HTTP response, through the service that answers it.

use super::{codec::DynamicCodec, request, response, stream};
use crate::{routes::Rpc, trace_id::TraceId};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};
use prost_reflect::DynamicMessage;
use stampede_chassis::{
    Deadline, Identity, MeshChannel,
    identity::{ROLE_METADATA, USER_METADATA},
};
use stampede_status::{Problem, Reason};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// The role of a caller without a token. It is no role of any service, so it has no rights.
const ANONYMOUS: &str = "anonymous";

/// The channels by the full name of the service.
pub type Upstreams = HashMap<String, MeshChannel>;

/// The limits of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Longest wait for a unary answer, and for the start of a stream.
    pub deadline: Duration,
    /// Streams that may be open at a time.
    pub max_streams: usize,
}

/// One request, checked and read, on its way to a service.
#[derive(Debug)]
pub struct Call<'r> {
    /// How its method is called.
    pub rpc: &'r Arc<Rpc>,
    /// Who calls; `None` without a token.
    pub caller: Option<&'r Identity>,
    /// Names the request in problems.
    pub trace_id: &'r TraceId,
    /// Path and query.
    pub uri: &'r Uri,
    pub body: &'r [u8],
}

/// Turns HTTP/JSON requests into gRPC calls and their answers back.
pub struct Transcoder {
    upstreams: Upstreams,
    limits: CallLimits,
    streams: Arc<Semaphore>,
    draining: CancellationToken,
}

impl Transcoder {
    /// Calls through `upstreams`; open streams end when `draining` is cancelled.
    pub fn new(upstreams: Upstreams, limits: CallLimits, draining: CancellationToken) -> Self {
        Self { upstreams, limits, streams: Arc::new(Semaphore::new(limits.max_streams)), draining }
    }

    /// Makes the call and renders what comes back.
    pub async fn call(&self, call: Call<'_>) -> Result<Response, Problem> {
        let message = request::assemble(call.rpc, call.uri, call.body)?;
        let request = Request::from_parts(metadata(&call)?, http::Extensions::default(), message);
        if call.rpc.streaming { self.stream(&call, request).await } else { self.unary(&call, request).await }
    }

    async fn unary(&self, call: &Call<'_>, request: Request<DynamicMessage>) -> Result<Response, Problem> {
        let mut grpc = self.client(call.rpc)?;
        let codec = DynamicCodec::new(call.rpc.output.clone());
        let answer = self
            .in_time(async {
                grpc.ready().await?;
                grpc.unary(request, call.rpc.grpc_path.clone(), codec).await
            })
            .await?;
        let json = response::to_json(call.rpc, answer.get_ref())?;
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
    }

    async fn stream(&self, call: &Call<'_>, request: Request<DynamicMessage>) -> Result<Response, Problem> {
        // Before the call, and held until the stream ends: streams are not bounded by the limit of requests in flight.
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Problem::new(Reason::Overloaded, "too many streams are open"))?;
        let mut grpc = self.client(call.rpc)?;
        let codec = DynamicCodec::new(call.rpc.output.clone());
        let answer = self
            .in_time(async {
                grpc.ready().await?;
                grpc.server_streaming(request, call.rpc.grpc_path.clone(), codec).await
            })
            .await?;
        let events = stream::Events { rpc: Arc::clone(call.rpc), trace_id: call.trace_id.clone(), _permit: permit };
        Ok(events.response(answer.into_inner(), self.draining.clone()))
    }

    fn client(&self, rpc: &Rpc) -> Result<Grpc<MeshChannel>, Problem> {
        let channel = self.upstreams.get(&rpc.service);
        let channel = channel.ok_or_else(|| Problem::unavailable(short_name(rpc), "no upstream is configured"))?;
        Ok(Grpc::new(channel.clone()))
    }

    /// Bounds the wait. The channel sends the deadline along to the service.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Problem> {
        let outcome = Deadline::after(self.limits.deadline).bound(work).await?;
        outcome.map_err(|status| Problem::from_status(&status))
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
