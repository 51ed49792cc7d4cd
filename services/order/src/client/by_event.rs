//! A batching client with a queue for each event.

use super::{PeerError, Queued, call_batch};
use stampede_batch::{BatchConfig, BatchError, Batcher, KeyedBatchers};
use stampede_chassis::Deadline;
use stampede_vocab::{EventId, Service};
use std::{future::Future, sync::Arc};
use tokio::sync::Semaphore;
use tonic::Status;
use tracing::Span;

/// Most events that have a queue of their own. If more are in use at a time, further ones share a queue. So requests
/// for events that do not exist cost only so many queues, and so many calls at a time: two for each queue.
const MAX_EVENTS: usize = 256;
/// Most requests of all events that are queued or in flight: as many as a process has calls under way.
const MAX_REQUESTS: usize = 8_192;

/// A batching client of one service, for requests that each name an event. Those for an event that queue while its
/// batch is in flight go out as one, so an event that the service is slow to answer for does not delay the others.
/// Clones share the queues.
#[derive(Clone)]
pub(super) struct EventClient<Q, A> {
    peer: Service,
    queues: KeyedBatchers<EventId, Queued<Q>, Result<A, PeerError>>,
    /// Places for requests that are queued or in flight.
    places: Arc<Semaphore>,
}

impl<Q, A> EventClient<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Clone + Send + 'static,
{
    /// Returns a client that sends batches by `call`, like [`super::BatchingClient`]. `config` is that of each queue:
    /// one that is full must leave places to the other events.
    pub(super) fn new<C, Fut>(peer: Service, config: BatchConfig, call: C) -> Self
    where
        C: Fn(Vec<Q>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<A>, Status>> + Send + 'static,
    {
        let queue = move || {
            let call = call.clone();
            Batcher::new(config, move |queued: Vec<Queued<Q>>| call_batch(peer, call.clone(), queued))
        };
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { peer, queues: KeyedBatchers::bounded(MAX_EVENTS, queue), places }
    }

    /// Sends a request in the next batch of its event. Drops it if the deadline of the current RPC passes while it is
    /// queued. Fails at once if there is no place for it.
    pub(super) async fn call(&self, event: EventId, request: Q) -> Result<A, PeerError> {
        let not_sent = |error| PeerError::NotSent { peer: self.peer, error };
        let place = self.places.clone().try_acquire_owned().map_err(|_| not_sent(BatchError::Overloaded))?;
        let queued = Queued { request, span: Span::current(), place: Some(place) };
        let deadline = Deadline::current().map(Deadline::instant);
        self.queues.of(event).call_by(queued, deadline).await.map_err(not_sent)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, time::Duration};
    use tokio::time::timeout;
    use uuid::Uuid;

    const CONFIG: BatchConfig =
        BatchConfig { name: "test", max_batch: 1, max_in_flight: 2, max_queued: MAX_REQUESTS, must_run: false };
    const TICK: Duration = Duration::from_millis(10);

    fn event(number: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(number))
    }

    /// A client of a service that never answers `None`.
    fn client() -> EventClient<Option<u32>, u32> {
        EventClient::new(Service::Inventory, CONFIG, |requests: Vec<Option<u32>>| async move {
            match requests.into_iter().collect::<Option<Vec<u32>>>() {
                Some(numbers) => Ok::<_, Status>(numbers),
                None => pending().await,
            }
        })
    }

    /// Sends requests for this event that are not answered.
    fn hang(client: &EventClient<Option<u32>, u32>, event: EventId, requests: usize) {
        for _ in 0..requests {
            let client = client.clone();
            tokio::spawn(async move { client.call(event, None).await });
        }
    }

    #[tokio::test]
    async fn an_event_that_is_not_answered_for_does_not_delay_another() {
        let client = client();
        hang(&client, event(1), 2);
        tokio::time::sleep(2 * TICK).await;
        let same_event = timeout(TICK, client.call(event(1), Some(7))).await;
        assert!(same_event.is_err(), "both batches of the event are in flight: {same_event:?}");
        let other_event = timeout(Duration::from_secs(1), client.call(event(2), Some(7))).await;
        assert_eq!(other_event.expect("not delayed").expect("answered"), 7);
    }

    #[tokio::test]
    async fn all_events_together_have_so_many_places_and_get_them_back() {
        let client = client();
        assert_eq!(client.call(event(1), Some(7)).await.expect("there is a place"), 7);
        assert_eq!(client.places.available_permits(), MAX_REQUESTS);
        for number in 0..4 {
            hang(&client, event(number), MAX_REQUESTS / 4);
        }
        while client.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = client.call(event(9), Some(7)).await;
        assert!(matches!(refused, Err(PeerError::NotSent { error: BatchError::Overloaded, .. })), "{refused:?}");
    }
}
