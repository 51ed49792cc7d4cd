//! Gives back holds of orders that were not written.

use super::Error;
use futures_util::future::try_join_all;
use stampede_lua::stock::Stock;
use stampede_vocab::{EventId, OrderId, Timestamp};
use std::collections::HashMap;

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

/// Gives holds back. Cheap to clone.
#[derive(Clone)]
pub struct ReleaseHolds {
    redis: Stock,
}

impl ReleaseHolds {
    /// Gives back holds in this Redis.
    pub fn new(redis: Stock) -> Self {
        Self { redis }
    }

    /// Gives back these holds, in one call an event. Returns how many were given back.
    pub async fn run(&self, holds: &[EventHold]) -> Result<u32, Error> {
        let mut by_event: HashMap<EventId, Vec<(OrderId, Timestamp)>> = HashMap::new();
        for hold in holds {
            by_event.entry(hold.event_id).or_default().push((hold.order_id, hold.held_at));
        }
        let calls = by_event.iter().map(|(event, holds)| self.redis.release(*event, holds));
        Ok(try_join_all(calls).await?.into_iter().sum())
    }
}
