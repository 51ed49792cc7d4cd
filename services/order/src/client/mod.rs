//! Clients of the inventory and the coupon service. They return values of the domain. Only this module,
//! `rpc/convert.rs` and `messages.rs` use proto types.

mod by_event;
mod coupon;
mod inventory;

pub use coupon::Coupons;
pub use inventory::Inventory;

use stampede_batch::{BatchConfig, BatchError, Batcher};
use stampede_chassis::{Deadline, retry_unavailable};
use stampede_vocab::Service;
use std::{fmt::Display, future::Future, time::Duration};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tracing::{Instrument, Span};

/// Attempts of a call, including the first. Every call here is idempotent by its order id.
const MAX_ATTEMPTS: u32 = 3;
/// Time-out of a call with all its attempts.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call to another service has no result. A refusal is a result, not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// The service could not be reached, or failed.
    #[error("the {peer} service answered {:?}: {}", status.code(), status.message())]
    Failed { peer: Service, status: Status },
    /// The call was not sent: the queue was full, or the deadline passed while it was queued.
    #[error("a call to the {peer} service: {error}")]
    NotSent { peer: Service, error: BatchError },
}

impl PeerError {
    /// The answer is not valid: the contract does not allow it.
    fn invalid(peer: Service, problem: impl Display) -> Self {
        Self::Failed { peer, status: Status::internal(format!("an invalid answer: {problem}")) }
    }
}

/// A batching client of one service. Calls that queue while a batch is in flight go out as one. Clones share the queue.
#[derive(Clone)]
struct BatchingClient<Q, A> {
    peer: Service,
    batcher: Batcher<Queued<Q>, Result<A, PeerError>>,
}

/// A queued request, and the span that it is part of.
struct Queued<Q> {
    request: Q,
    span: Span,
    /// Kept until it is answered, by a client that counts its requests.
    place: Option<OwnedSemaphorePermit>,
}

impl<Q, A> BatchingClient<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Clone + Send + 'static,
{
    /// Returns a client that sends batches by `call`, with the retries of [`retry_unavailable`]. `call` must return one
    /// answer a request, in order.
    fn new<C, Fut>(peer: Service, config: BatchConfig, call: C) -> Self
    where
        C: Fn(Vec<Q>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<A>, Status>> + Send + 'static,
    {
        Self { peer, batcher: Batcher::new(config, move |queued| call_batch(peer, call.clone(), queued)) }
    }

    /// Sends a request in the next batch. Drops it if the deadline of the current RPC passes while it is queued.
    async fn call(&self, request: Q) -> Result<A, PeerError> {
        let queued = Queued { request, span: Span::current(), place: None };
        let deadline = Deadline::current().map(Deadline::instant);
        let answer = self.batcher.call_by(queued, deadline).await;
        answer.map_err(|error| PeerError::NotSent { peer: self.peer, error })?
    }
}

/// Sends a batch, traced as part of its first request.
async fn call_batch<Q, A, C, Fut>(peer: Service, call: C, queued: Vec<Queued<Q>>) -> Vec<Result<A, PeerError>>
where
    Q: Clone,
    A: Clone,
    C: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Result<Vec<A>, Status>>,
{
    let count = queued.len();
    let span = queued.first().map_or_else(Span::none, |first| first.span.clone());
    let (requests, _places): (Vec<Q>, Vec<_>) = queued.into_iter().map(|queued| (queued.request, queued.place)).unzip();
    match retry_unavailable(MAX_ATTEMPTS, TIMEOUT, || call(requests.clone())).instrument(span).await {
        Ok(answers) if answers.len() == count => answers.into_iter().map(Ok).collect(),
        Ok(_) => vec![Err(PeerError::invalid(peer, "another number of results than was asked for")); count],
        Err(status) => vec![Err(PeerError::Failed { peer, status }); count],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use stampede_status::{Problem, Reason};
    use tonic::Code;

    /// Sends 1, 2 and 3 concurrently.
    async fn call_three<A, C, Fut>(call: C) -> Vec<Result<A, PeerError>>
    where
        A: Clone + Send + 'static,
        C: Fn(Vec<u32>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<A>, Status>> + Send + 'static,
    {
        let config = BatchConfig { name: "test", max_batch: 8, max_in_flight: 1, max_queued: 8, must_run: false };
        let client = BatchingClient::new(Service::Coupon, config, call);
        join_all([1, 2, 3].map(|request| client.call(request))).await
    }

    #[tokio::test]
    async fn what_is_asked_together_is_one_call_and_each_gets_its_own_answer() {
        let call = |requests: Vec<u32>| async move {
            let count = requests.len();
            Ok::<_, Status>(requests.into_iter().map(|request| (request, count)).collect::<Vec<_>>())
        };
        let answers: Vec<_> = call_three(call).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [(1, 3), (2, 3), (3, 3)]);
    }

    #[tokio::test]
    async fn a_call_that_fails_or_is_answered_without_sense_fails_for_all_that_are_in_it() {
        let code = |answer: Result<u32, PeerError>| match answer {
            Err(PeerError::Failed { peer: Service::Coupon, status }) => status.code(),
            other => panic!("{other:?}"),
        };
        let overloaded =
            call_three(|_| async { Err::<Vec<u32>, _>(Status::from(Problem::new(Reason::Overloaded, "no"))) }).await;
        assert_eq!(overloaded.into_iter().map(code).collect::<Vec<_>>(), [Code::Unavailable; 3]);
        let too_few = call_three(|_| async { Ok::<Vec<u32>, Status>(vec![1, 2]) }).await;
        assert_eq!(too_few.into_iter().map(code).collect::<Vec<_>>(), [Code::Internal; 3]);
    }
}
