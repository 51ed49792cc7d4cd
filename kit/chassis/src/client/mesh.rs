//! A channel to a service, over all of its replicas that are ready.
//!
//! Fails quickly, with UNAVAILABLE if no replica can be reached and DEADLINE_EXCEEDED if none answered in time. Retries
//! a call that no handler can have seen: one that got no connection, or that a draining replica refused. Does not retry
//! others, which may have taken effect: a caller whose call is idempotent retries itself
//! ([`crate::retry_unavailable`]), and most often reaches another replica. Calls to a replica that stops answering fail
//! as UNAVAILABLE once its probes have failed. A call that is marked [`ReadOnly`] is retried once.

use super::{
    discover::{discover, look_up, name_in},
    probe::probe,
    propagate,
    replicas::{Lane, Replica, Replicas, endpoint},
};
use crate::{Deadline, Signer};
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use stampede_status::Problem;
use stampede_vocab::backoff;
use std::{
    future::Future,
    io, mem,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tonic::{Status, body::Body};
use tower::Service;

/// Longest wait of a call for a replica that is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Marks a call without effects, as an extension of its request. It is retried once after a failure, most often on
/// another replica.
#[derive(Debug, Clone, Copy)]
pub struct ReadOnly;

/// A channel for generated clients: `OrderServiceClient::new(channel)`. Clones share connections and probes, which end
/// with the last clone.
///
/// Propagates the trace, the deadline ([`crate::Deadline`]) and the user and role in the metadata of a call
/// ([`crate::identity`]), which this process signs. A call without a role has no rights, unless the channel is for the
/// process' own calls. The deadline bounds the time until the answer begins. Requests are buffered whole before they
/// are sent, so the channel is not for streams from the client.
#[derive(Clone)]
pub struct MeshChannel {
    pub(super) shared: Arc<Shared>,
    lane: Lane,
    signer: Option<Signer>,
    on_own_behalf: bool,
}

pub(super) struct Shared {
    name: &'static str,
    pub(super) replicas: Replicas,
    _probes: JoinSet<()>,
}

impl Service<Request<Body>> for MeshChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let deadline = propagate::deadline_of(&head.headers);
        propagate::stamp(&mut head.headers, deadline);
        let signed = self.sign(&mut head);
        let mesh = self.clone();
        async move {
            signed?;
            match timeout_at(deadline.instant(), mesh.send(head, body)).await {
                Ok(outcome) => outcome.map_err(Status::from),
                Err(_) => Err(Deadline::exceeded().into()),
            }
        }
        .boxed()
    }
}

impl MeshChannel {
    /// Returns a channel to the service `name`, whose replicas are at `urls`: one at `http://host:7103`, and one at
    /// each address that DNS has for the host of `dns:///host:7103`. Looks up and probes them in the background, on the
    /// current runtime. Logs and skips a malformed URL.
    pub fn connect(urls: &[String], name: &'static str) -> MeshChannel {
        MeshChannel::resolving(urls, name, look_up)
    }

    /// Connects with this resolver.
    pub(super) fn resolving<F, Fut>(urls: &[String], name: &'static str, look_up: F) -> MeshChannel
    where
        F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let replicas = Replicas::new();
        let mut probes = JoinSet::new();
        for url in urls {
            if let Some(many) = name_in(url) {
                probes.spawn(discover(many.to_owned(), look_up.clone(), replicas.clone()));
                continue;
            }
            match endpoint(url) {
                Ok(endpoint) => drop(probes.spawn(probe(endpoint, replicas.clone()))),
                Err(error) => {
                    tracing::error!(server.name = name, server.url = url, error.cause = %error, "a URL is malformed");
                }
            }
        }
        let shared = Arc::new(Shared { name, replicas, _probes: probes });
        MeshChannel { shared, lane: Lane::Calls, signer: None, on_own_behalf: false }
    }

    /// Signs calls with this signer. Without one the identity is plain metadata.
    #[must_use]
    pub fn signed_by(self, signer: Signer) -> MeshChannel {
        MeshChannel { signer: Some(signer), ..self }
    }

    /// For the process' own calls: one without a role gets the role of a service.
    #[must_use]
    pub fn on_own_behalf(self) -> MeshChannel {
        MeshChannel { on_own_behalf: true, ..self }
    }

    fn sign(&self, head: &mut Parts) -> Result<(), Problem> {
        let Some(signer) = &self.signer else { return Ok(()) };
        signer.sign(&mut head.headers, head.uri.path(), self.on_own_behalf)
    }

    /// Uses a second connection to each replica, for streams only, so that a stream that is not read blocks no call.
    /// Streams must be read as their messages arrive, since they share a flow-control window.
    #[must_use]
    pub fn for_streams(&self) -> MeshChannel {
        MeshChannel { lane: Lane::Streams, ..self.clone() }
    }

    /// Sends the request, with retries.
    async fn send(self, head: Parts, body: Body) -> Result<Response<Body>, Problem> {
        let mut give_up = Instant::now() + READY_TIMEOUT;
        let message = body.collect().await.map_err(Problem::internal_error)?.to_bytes();
        let mut repeatable = head.extensions.get::<ReadOnly>().is_some();
        let mut attempt = 0;
        loop {
            let replica = self.replica(give_up).await?;
            let copy = Request::from_parts(head.clone(), Body::new(Full::new(message.clone())));
            let error = match replica.call(self.lane, copy).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if error.is_timeout() {
                return Err(Deadline::exceeded());
            }
            let was_unseen = error.was_never_handled() && Instant::now() < give_up;
            if !was_unseen {
                // The call may have been handled: it is retried once if it is read-only.
                if !mem::take(&mut repeatable) {
                    return Err(self.unreachable(error.to_string()));
                }
                give_up = Instant::now() + READY_TIMEOUT;
            }
            self.shared.replicas.probe_now.notify_waiters();
            self.shared.replicas.look_up_now.notify_waiters();
            sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    /// Waits for a replica that is ready, and returns the least busy one.
    async fn replica(&self, give_up: Instant) -> Result<Arc<Replica>, Problem> {
        let replica = timeout_at(give_up, self.shared.replicas.next()).await;
        replica.map_err(|_| self.unreachable("no replica is ready".to_owned()))
    }

    fn unreachable(&self, cause: String) -> Problem {
        Problem::unavailable(format_args!("the {} service", self.shared.name), cause)
    }
}
