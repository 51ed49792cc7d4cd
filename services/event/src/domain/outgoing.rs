//! The messages that the service publishes.

use crate::domain::{Item, PaidOrders, Times};
use stampede_vocab::{EventId, Timestamp};

/// One message of the service. The version orders the messages of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// An event was created, or its times were moved.
    Scheduled {
        event_id: EventId,
        version: i64,
        /// When it opens and closes.
        times: Times,
        /// Items on offer.
        items: Vec<Item>,
    },
    /// An event opened.
    Opened {
        event_id: EventId,
        version: i64,
        /// When it was to open.
        open_time: Timestamp,
        /// When it did.
        actual_open_time: Timestamp,
    },
    /// An event closed at its time.
    Closed {
        event_id: EventId,
        version: i64,
        /// When it was to close.
        close_time: Timestamp,
        /// When it did.
        actual_close_time: Timestamp,
    },
    /// An event was cancelled, or its paid orders are to be refunded after they were kept.
    Cancelled {
        event_id: EventId,
        version: i64,
        /// When it was cancelled.
        cancel_time: Timestamp,
        /// What becomes of its paid orders.
        paid_orders: PaidOrders,
    },
}
