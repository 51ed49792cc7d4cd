//! Holds units for orders. A batch of reservations stays one: one script call for each event in it.

use super::{Error, unknown_events::UnknownEvents};
use futures_util::future::try_join_all;
use stampede_db::Database;
use stampede_lua::{
    RedisError,
    stock::{Decision, Reservation, Stock},
};
use stampede_vocab::EventId;
use std::collections::HashMap;

/// A reservation with the event that its items are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReservation {
    pub event_id: EventId,
    /// What one order wants held.
    pub reservation: Reservation,
}

/// The answer to one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// As Redis decided.
    Decided(Decision),
    /// No stock was ever staged for the event.
    EventNotFound,
}

/// Reserves units. Clones share what is known of unknown events.
#[derive(Clone)]
pub struct ReserveUnits {
    redis: Stock,
    unknown: UnknownEvents,
}

impl ReserveUnits {
    /// Reserves units in this Redis; the database knows which events there are.
    pub fn new(db: Database, redis: Stock) -> Self {
        Self { redis, unknown: UnknownEvents::new(db) }
    }

    /// Decides reservations, each on its own; the answers come in the order given. After a failure some may be held
    /// all the same: asking again gives the same holds, and what nobody asks for again is swept.
    pub async fn run(&self, wanted: Vec<EventReservation>) -> Result<Vec<Reserved>, Error> {
        let events: Vec<EventId> = wanted.iter().map(|one| one.event_id).collect();
        let decided = self.decide(wanted).await?;
        Ok(self.unknown.tell_apart(&events, decided).await)
    }

    async fn decide(&self, wanted: Vec<EventReservation>) -> Result<Vec<Decision>, RedisError> {
        let mut by_event: HashMap<EventId, (Vec<usize>, Vec<Reservation>)> = HashMap::new();
        for (index, EventReservation { event_id, reservation }) in wanted.into_iter().enumerate() {
            let (indexes, reservations) = by_event.entry(event_id).or_default();
            indexes.push(index);
            reservations.push(reservation);
        }
        let calls = by_event.into_iter().map(|(event, (indexes, reservations))| async move {
            let decisions = self.redis.reserve(event, &reservations).await?;
            Ok::<_, RedisError>(indexes.into_iter().zip(decisions))
        });
        let mut decided: Vec<(usize, Decision)> = try_join_all(calls).await?.into_iter().flatten().collect();
        decided.sort_unstable_by_key(|(index, _)| *index);
        Ok(decided.into_iter().map(|(_, decision)| decision).collect())
    }
}
