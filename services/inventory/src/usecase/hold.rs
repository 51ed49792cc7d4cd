//! Holding units for orders, and giving holds back.

use crate::usecase::{Inventory, InventoryError, unknown_events::UnknownEvents};
use futures_util::future::{join_all, try_join_all};
use stampede_batch::{BatchConfig, Batcher};
use stampede_db::Database;
use stampede_lua::{
    RedisError,
    stock::{Decision, MAX_RESERVATIONS, Reservation, Stock},
};
use stampede_vocab::{EventId, OrderId, Timestamp};
use std::{collections::HashMap, sync::Arc};

const BATCHES: BatchConfig =
    BatchConfig { name: "reserve", max_batch: MAX_RESERVATIONS, max_in_flight: 2, max_queued: 16_384 };

/// A reservation with the event that its items are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReservation {
    /// Event.
    pub event_id: EventId,
    /// What one order wants held.
    pub reservation: Reservation,
}

/// A hold to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHold {
    /// Event of the order.
    pub event_id: EventId,
    /// Order that was held for.
    pub order_id: OrderId,
    /// As the hold said: one that was asked for again since stays.
    pub held_at: Timestamp,
}

/// The answer to one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// As Redis decided.
    Decided(Decision),
    /// No stock was ever staged for the event.
    EventNotFound,
}

/// Sends reservations to Redis, many in one call: what queues while a call is in flight goes out together.
#[derive(Clone)]
pub(super) struct Reserver {
    batcher: Batcher<EventReservation, Result<Reserved, Arc<RedisError>>>,
}

impl Reserver {
    pub(super) fn new(db: Database, redis: Stock) -> Self {
        let unknown = UnknownEvents::new(db);
        let run = move |batch: Vec<EventReservation>| {
            let (redis, unknown) = (redis.clone(), unknown.clone());
            async move {
                let events: Vec<EventId> = batch.iter().map(|one| one.event_id).collect();
                let decided = decide(&redis, batch).await;
                unknown.tell_apart(&events, decided).await
            }
        };
        Self { batcher: Batcher::new(BATCHES, run) }
    }

    async fn reserve(&self, wanted: EventReservation) -> Result<Reserved, InventoryError> {
        self.batcher.call(wanted).await?.map_err(InventoryError::Redis)
    }
}

impl Inventory {
    /// Decides reservations, each on its own; the answers come in the order given. After a failure some may be held
    /// all the same: asking again gives the same holds, and what nobody asks for again is swept.
    pub async fn reserve(&self, wanted: Vec<EventReservation>) -> Result<Vec<Reserved>, InventoryError> {
        try_join_all(wanted.into_iter().map(|one| self.reserver.reserve(one))).await
    }

    /// Gives back holds of orders that were never written. Returns how many were given back.
    pub async fn release(&self, holds: &[EventHold]) -> Result<u32, InventoryError> {
        let mut by_event: HashMap<EventId, Vec<(OrderId, Timestamp)>> = HashMap::new();
        for hold in holds {
            by_event.entry(hold.event_id).or_default().push((hold.order_id, hold.held_at));
        }
        let calls = by_event.iter().map(|(event, holds)| self.redis.release(*event, holds));
        Ok(try_join_all(calls).await?.into_iter().sum())
    }
}

/// Decides one batch: one call for each event in it. The answers come in the order of the batch.
async fn decide(redis: &Stock, batch: Vec<EventReservation>) -> Vec<Result<Decision, Arc<RedisError>>> {
    let size = batch.len();
    let mut by_event: HashMap<EventId, (Vec<usize>, Vec<Reservation>)> = HashMap::new();
    for (place, EventReservation { event_id, reservation }) in batch.into_iter().enumerate() {
        let (places, reservations) = by_event.entry(event_id).or_default();
        places.push(place);
        reservations.push(reservation);
    }
    let calls = by_event.into_iter().map(|(event, (places, reservations))| async move {
        (places, redis.reserve(event, &reservations).await.map_err(Arc::new))
    });
    let mut answers = Vec::with_capacity(size);
    for (places, outcome) in join_all(calls).await {
        match outcome {
            Ok(decisions) => answers.extend(places.into_iter().zip(decisions.into_iter().map(Ok))),
            Err(error) => answers.extend(places.into_iter().map(|place| (place, Err(error.clone())))),
        }
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
