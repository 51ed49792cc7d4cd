//! Encodes the messages of this service for Kafka. Decides nothing.

use crate::domain::{Item, OutgoingMessage, PaidOrders, Times};
use prost::{Message, Name};
use stampede_outbox::OutboxMessage;
use stampede_proto::{convert::timestamp, message::v1 as proto, messages};
use stampede_vocab::EventId;

/// Returns the outbox row of this message.
pub fn encode(message: &OutgoingMessage) -> OutboxMessage {
    match message {
        OutgoingMessage::Scheduled { event_id, version, times, items } => {
            let payload = scheduled(*event_id, *version, *times, items);
            row(*event_id, *version, &payload)
        }
        OutgoingMessage::Opened { event_id, version, open_time, actual_open_time } => {
            let payload = proto::EventOpened {
                event_id: event_id.to_string(),
                version: *version,
                open_time: Some(timestamp(*open_time)),
                actual_open_time: Some(timestamp(*actual_open_time)),
            };
            row(*event_id, *version, &payload)
        }
        OutgoingMessage::Closed { event_id, version, close_time, actual_close_time } => {
            let payload = proto::EventClosed {
                event_id: event_id.to_string(),
                version: *version,
                close_time: Some(timestamp(*close_time)),
                actual_close_time: Some(timestamp(*actual_close_time)),
            };
            row(*event_id, *version, &payload)
        }
        OutgoingMessage::Cancelled { event_id, version, cancel_time, paid_orders } => {
            let payload = proto::EventCancelled {
                event_id: event_id.to_string(),
                version: *version,
                cancel_time: Some(timestamp(*cancel_time)),
                refund_paid_orders: *paid_orders == PaidOrders::Refund,
            };
            row(*event_id, *version, &payload)
        }
    }
}

fn scheduled(event_id: EventId, version: i64, times: Times, items: &[Item]) -> proto::EventScheduled {
    proto::EventScheduled {
        event_id: event_id.to_string(),
        version,
        open_time: Some(timestamp(times.open_time())),
        close_time: Some(timestamp(times.close_time())),
        items: items.iter().map(scheduled_item).collect(),
    }
}

fn scheduled_item(item: &Item) -> proto::ScheduledItem {
    proto::ScheduledItem {
        item_id: item.id.to_string(),
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift.as_ref().map_or(0, |gift| gift.total_units),
        unit_price: Some(item.unit_price.into()),
        title: item.title.clone(),
        gift_title: item.gift.as_ref().map(|gift| gift.title.clone()).unwrap_or_default(),
    }
}

fn row<M: Message + Name>(event_id: EventId, version: i64, message: &M) -> OutboxMessage {
    let (message_type, payload) = messages::encode(message);
    OutboxMessage {
        aggregate_type: "event",
        aggregate_id: event_id.to_string(),
        aggregate_version: version,
        message_type,
        payload,
        traceparent: None,
    }
}
