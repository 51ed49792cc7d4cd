//! The messages that the service publishes.

use crate::domain::{Item, PaidOrders, Times};
use stampede_vocab::{EventId, Timestamp};

/// A message of the service. The version orders the messages of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// An event was created, or its times were moved.
    Scheduled { event_id: EventId, version: i64, times: Times, items: Vec<Item> },
    Opened {
        event_id: EventId,
        version: i64,
        /// The scheduled time.
        open_time: Timestamp,
        actual_open_time: Timestamp,
    },
    /// An event closed at its time.
    Closed {
        event_id: EventId,
        version: i64,
        /// The scheduled time.
        close_time: Timestamp,
        actual_close_time: Timestamp,
    },
    /// An event was cancelled, or its paid orders are to be refunded after they were kept.
    Cancelled { event_id: EventId, version: i64, cancel_time: Timestamp, paid_orders: PaidOrders },
}
