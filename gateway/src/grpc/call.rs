//! One call to a service: acquires its permits, applies the limits, sends it and writes the answer.

use super::{
    codec::BytesCodec,
    connect,
    encoding::Encoding,
    frame, no_such_method, respond,
    skim::{subject_of, subjects},
    stream,
    wire::Wire,
};
use crate::{
    auth::{Caller, UntilEnd},
    gateway::Gateway,
    hold::{Class, Holder, Permit, newest},
    routes::{Access, Endpoint, Route, Rpc},
    transcode::read_json,
    upstream::{Outgoing, Upstream},
};
use axum::{extract::Request, response::Response};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending},
    stream::BoxStream,
};
use http::{HeaderMap, header};
use prost::Message;
use prost_reflect::DynamicMessage;
use stampede_chassis::{Deadline, keep};
use stampede_status::{Problem, Reason};
use std::sync::Arc;
use tonic::{Status, Streaming};

/// A call whose body has arrived.
struct Arrived<'g> {
    gateway: &'g Gateway,
    wire: Wire,
    rpc: &'g Arc<Rpc>,
    /// Whether the method is open to all, so that the answer is the same for all.
    is_public: bool,
    class: Class,
    caller: Option<&'g Caller>,
    holder: Holder,
    /// The caller's deadline, if they gave one.
    theirs: Option<Deadline>,
    message: Bytes,
}

/// Answers a call of a method that its caller may call; `caller` is `None` where a method is open to all.
pub async fn dispatch(
    gateway: &Gateway,
    wire: Wire,
    route: &Route,
    caller: Option<&Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let Endpoint::Rpc(rpc) = &route.endpoint else { return Err(no_such_method()) };
    let (parts, body) = request.into_parts();
    let (theirs, class) = (wire.deadline(&parts.headers), Class::of(route));
    if wire.is_connect() {
        connect::check_version(&parts.headers)?;
        if rpc.streaming {
            let detail = "a stream is not offered in this protocol: take gRPC or gRPC-Web";
            return Err(Problem::new(Reason::NotImplemented, detail));
        }
    }
    let holder = gateway.holds.holder(&parts, caller.map(|caller| &caller.identity));
    let body = gateway.holds.read(body, &holder, class).await?;
    // Acquired only now: a permit covers the call and its answer, not a body that is still arriving.
    let permit = gateway.holds.request(&holder, class)?;
    let message = read(wire, rpc, &parts.headers, body, gateway.holds.body_limit())?;
    let is_public = route.access == Access::Public;
    let call = Arrived { gateway, wire, rpc, is_public, class, caller, holder, theirs, message };
    if rpc.streaming { call.stream().await } else { call.unary(permit).await }
}

/// Returns the request message of a body.
fn read(wire: Wire, rpc: &Rpc, headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, Problem> {
    match wire {
        Wire::Grpc | Wire::Web => frame::only_message(headers, &body, limit),
        Wire::WebText => frame::only_message(headers, &frame::of_text(&body)?, limit),
        Wire::ConnectProto => Encoding::of(headers, header::CONTENT_ENCODING)?.decode(body, limit),
        Wire::ConnectJson => {
            let body = Encoding::of(headers, header::CONTENT_ENCODING)?.decode(body, limit)?;
            Ok(read_json(&rpc.input, &body)?.encode_to_vec().into())
        }
    }
}

impl Arrived<'_> {
    /// Makes a unary call. The permit is released when the answer is written.
    async fn unary(self, permit: Permit) -> Result<Response, Problem> {
        let Self { gateway, rpc, .. } = self;
        let path = rpc.grpc_path.as_str();
        let identity = self.caller.map(|caller| &caller.identity);
        let tracker = if gateway.acts.limits(path) {
            gateway.acts.call(path, identity, self.holder.block, &self.request()?).await?
        } else {
            None
        };
        let answer = gateway.upstream.unary(self.outgoing(), self.message.clone(), BytesCodec).await;
        if let Some(tracker) = tracker {
            tracker.record(answer.as_deref()).await;
        }
        let mut answer = answer?;
        if self.wire == Wire::ConnectJson {
            answer = connect::to_json(&decode_answer(rpc, answer)?)?;
        }
        let bytes = answer.len();
        gateway.holds.answer_of(&self.holder, permit, bytes, respond::message(self.wire, answer))
    }

    /// Opens a stream. The permit of the request is released once it begins; that of the stream when it ends.
    async fn stream(self) -> Result<Response, Problem> {
        let gateway = self.gateway;
        let held = gateway.holds.stream_about(&self.holder, self.class, subjects(&self.request()?))?;
        let end = self.caller.map_or_else(|| pending().boxed(), |caller| gateway.auth.end_of(caller));
        let messages = self.messages(end).await?;
        let lapse = stream::lapse(gateway.draining.clone(), self.theirs);
        Ok(keep(stream::response(self.wire, UntilEnd::new(messages, lapse)), held))
    }

    /// Opens the stream of the call, or joins one that is the same for all.
    async fn messages(
        &self,
        end: BoxFuture<'static, Problem>,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Problem> {
        let Self { gateway, rpc, message, .. } = self;
        let subject = subject_of(&rpc.output);
        if self.is_public {
            let open = || open_for_all(Arc::clone(&gateway.upstream), Arc::clone(rpc), message.clone());
            let watcher = gateway.shared.join(rpc, message, open, subject);
            self.outgoing().deadline.bound(watcher.opened()).await??;
            return Ok(UntilEnd::new(watcher.messages().boxed(), end).boxed());
        }
        let messages = gateway.upstream.open(self.outgoing(), message.clone(), BytesCodec).await?;
        Ok(newest(UntilEnd::new(messages, end), subject, gateway.watcher_stall).boxed())
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let deadline = self.gateway.upstream.deadline(self.theirs);
        Outgoing { rpc: self.rpc, caller: self.caller.map(|caller| &caller.identity), deadline }
    }

    /// Decodes the request: a bound needs a field of it.
    fn request(&self) -> Result<DynamicMessage, Problem> {
        DynamicMessage::decode(self.rpc.input.clone(), self.message.clone())
            .map_err(|_| Problem::new(Reason::MalformedMessage, "the request is not a message of this method"))
    }
}

/// Opens a stream for nobody in particular.
async fn open_for_all(upstream: Arc<Upstream>, rpc: Arc<Rpc>, message: Bytes) -> Result<Streaming<Bytes>, Problem> {
    let outgoing = Outgoing { rpc: &rpc, caller: None, deadline: upstream.deadline(None) };
    upstream.open(outgoing, message, BytesCodec).await
}

fn decode_answer(rpc: &Rpc, answer: Bytes) -> Result<DynamicMessage, Problem> {
    DynamicMessage::decode(rpc.output.clone(), answer).map_err(Problem::internal_error)
}
