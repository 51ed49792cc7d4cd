//! Calls to the services: channel, deadline and identity.
//!
//! It knows neither the messages nor the protocol in which the caller sent them.

use crate::{problem::spread, routes::Rpc};
use stampede_chassis::{
    Deadline, Identity, MeshChannel, ReadOnly,
    identity::{ROLE_METADATA, USER_METADATA},
};
use stampede_status::{Problem, Reason};
use std::{collections::HashMap, future::Future, time::Duration};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::Codec,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// The role of a caller without a token. It is no role of any service, so it has no rights.
const ANONYMOUS: &str = "anonymous";

/// Largest answer of a service, in bytes. The largest that the contract allows is a list of 100 events of 100 items
/// with a gift, whose titles have 200 characters each: 18 MB, if all of them take four bytes.
const MAX_ANSWER_BYTES: usize = 24 << 20;

/// The channels by the full name of the service.
pub type Channels = HashMap<String, MeshChannel>;

#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Longest wait for a unary answer, and for the start of a stream.
    pub deadline: Duration,
}

/// A call that is made for somebody.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'c> {
    pub rpc: &'c Rpc,
    /// The caller; `None` without a token.
    pub caller: Option<&'c Identity>,
    /// The deadline of the answer, or of the start of a stream.
    pub deadline: Deadline,
}

/// The services behind the gateway.
pub struct Upstream {
    channels: Channels,
    limits: CallLimits,
}

impl Upstream {
    pub fn new(channels: Channels, limits: CallLimits) -> Self {
        Self { channels, limits }
    }

    /// Returns the deadline of a call that begins now: that of the gateway, or the caller's if it is earlier.
    pub fn deadline(&self, theirs: Option<Deadline>) -> Deadline {
        let ours = Deadline::after(self.limits.deadline);
        theirs.map_or(ours, |theirs| theirs.min(ours))
    }

    pub async fn unary<C>(&self, call: Outgoing<'_>, message: C::Encode, codec: C) -> Result<C::Decode, Problem>
    where
        C: Codec,
        C::Encode: Sync,
        C::Decode: Sync,
    {
        let mut grpc = self.client(call.rpc)?;
        let request = request(call, message)?;
        let answer = in_time(call.deadline, async {
            grpc.ready().await?;
            grpc.unary(request, call.rpc.grpc_path.clone(), codec).await
        })
        .await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream of answers. Only its start is bounded in time.
    pub async fn open<C>(
        &self,
        call: Outgoing<'_>,
        message: C::Encode,
        codec: C,
    ) -> Result<Streaming<C::Decode>, Problem>
    where
        C: Codec,
        C::Encode: Sync,
        C::Decode: Sync,
    {
        let mut grpc = self.client(call.rpc)?;
        let request = request(call, message)?;
        let answer = in_time(call.deadline, async {
            grpc.ready().await?;
            grpc.server_streaming(request, call.rpc.grpc_path.clone(), codec).await
        })
        .await?;
        Ok(answer.into_inner())
    }

    fn client(&self, rpc: &Rpc) -> Result<Grpc<MeshChannel>, Problem> {
        let channel = self.channels.get(&rpc.service);
        let channel = channel.ok_or_else(|| Problem::unavailable(short_name(rpc), "no upstream is configured"))?;
        let channel = if rpc.streaming { channel.for_streams() } else { channel.clone() };
        Ok(Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}

/// Applies the deadline. The channel sends it along to the service.
async fn in_time<T>(deadline: Deadline, work: impl Future<Output = Result<T, Status>>) -> Result<T, Problem> {
    let outcome = deadline.bound(work).await?;
    outcome.map_err(|status| failure(&status))
}

/// Translates a failure of a service into the problem for the caller.
pub fn failure(status: &Status) -> Problem {
    let problem = Problem::from_status(status);
    match problem.reason() {
        // The route is in the contract of the gateway, so the path and the method are right: the service is older.
        Reason::MethodNotAllowed => Problem::new(Reason::NotImplemented, "the service does not offer this yet"),
        // The caller was authenticated here, so the service rejects the gateway itself, by its secret or its clock.
        // With this answer a caller would throw a good token away.
        Reason::Unauthenticated => {
            let cause = format!("it does not believe this gateway: {status}");
            spread(Problem::unavailable("the service", cause))
        }
        // The status of the library for an answer that is too large. A service's own refusal of a request has a reason,
        // and no internal detail.
        Reason::BodyTooLarge if problem.internal_detail().is_some() => {
            Problem::internal_error(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes: {status}"))
        }
        _ => spread(problem),
    }
}

/// Returns `order` for `stampede.order.v1.OrderService`.
fn short_name(rpc: &Rpc) -> &str {
    rpc.service.split('.').nth(1).unwrap_or(&rpc.service)
}

/// Returns the request with its metadata, made from the token alone: nothing that the caller sent is passed on.
fn request<M>(call: Outgoing<'_>, message: M) -> Result<Request<M>, Problem> {
    let mut extensions = http::Extensions::default();
    if call.rpc.read_only {
        extensions.insert(ReadOnly);
    }
    Ok(Request::from_parts(metadata(call.caller)?, extensions, message))
}

fn metadata(caller: Option<&Identity>) -> Result<MetadataMap, Problem> {
    let mut metadata = MetadataMap::with_capacity(8);
    match caller {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table};
    use http::Method;

    fn waits(problem: Problem) -> Vec<Option<Duration>> {
        let status = Status::from(problem);
        (0..50).map(|_| failure(&status).retry_delay()).collect()
    }

    #[test]
    fn those_whom_a_service_refuses_for_now_do_not_come_back_together() {
        for reason in [Reason::Unavailable, Reason::Overloaded, Reason::NotReady] {
            let shortest = reason.default_retry().unwrap();
            let mut waits = waits(Problem::new(reason, "not now"));
            let in_range = |wait: &Option<Duration>| wait.is_some_and(|wait| (shortest..=shortest * 3).contains(&wait));
            assert!(waits.iter().all(in_range), "{reason}: {waits:?}");
            waits.sort();
            waits.dedup();
            assert!(waits.len() > 10, "{reason}: {waits:?}");
        }
        // A delay that the service has set is kept, such as that of a stream that ends at a random time.
        let named = Duration::from_secs(2);
        for reason in [Reason::Throttled, Reason::Unavailable] {
            let waits = waits(Problem::new(reason, "not now").retry_after(named));
            assert!(waits.iter().all(|wait| *wait == Some(named)), "{reason}: {waits:?}");
        }
    }

    /// Returns whether a call of this route may be made once more where a replica gives no answer.
    fn is_repeated(method: Method, path: &str) -> bool {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&method, path) else { panic!("{method} {path} is no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("{method} {path} calls no service") };
        let call = Outgoing { rpc, caller: None, deadline: Deadline::after(Duration::from_secs(1)) };
        request(call, ()).unwrap().extensions().get::<ReadOnly>().is_some()
    }

    #[test]
    fn reads_may_be_repeated_and_nothing_else() {
        assert!(is_repeated(Method::GET, "/v1/orders/ord_1"));
        assert!(is_repeated(Method::GET, "/v1/orders/ord_1:watch"));
        assert!(!is_repeated(Method::POST, "/v1/orders/ord_1:pay"));
    }
}
