//! What Kafka carries: the service's messages as protobuf, and the values that every contract shares.

use crate::domain::{Item, Outgoing, Times};
use prost::Message;
use stampede_outbox::OutboxMessage;
use stampede_proto::{message::v1 as proto, r#type::v1::Money as ProtoMoney};
use stampede_vocab::{EventId, Money, Timestamp};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The row of the outbox for this message.
pub fn encode(message: &Outgoing) -> OutboxMessage {
    match message {
        Outgoing::Scheduled { event_id, version, times, items } => {
            let payload = scheduled(*event_id, *version, *times, items);
            row(*event_id, *version, "stampede.message.v1.EventScheduled", &payload)
        }
        Outgoing::Opened { event_id, version, opens_at, opened_at } => {
            let payload = proto::EventOpened {
                event_id: event_id.to_string(),
                version: *version,
                opens_at: Some(timestamp(*opens_at)),
                opened_at: Some(timestamp(*opened_at)),
            };
            row(*event_id, *version, "stampede.message.v1.EventOpened", &payload)
        }
        Outgoing::Closed { event_id, version, closes_at, closed_at } => {
            let payload = proto::EventClosed {
                event_id: event_id.to_string(),
                version: *version,
                closes_at: Some(timestamp(*closes_at)),
                closed_at: Some(timestamp(*closed_at)),
            };
            row(*event_id, *version, "stampede.message.v1.EventClosed", &payload)
        }
        Outgoing::Cancelled { event_id, version, cancelled_at } => {
            let payload = proto::EventCancelled {
                event_id: event_id.to_string(),
                version: *version,
                cancelled_at: Some(timestamp(*cancelled_at)),
            };
            row(*event_id, *version, "stampede.message.v1.EventCancelled", &payload)
        }
    }
}

/// An instant as the contracts carry it.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.micros().rem_euclid(MICROS_PER_SECOND) * 1_000;
    prost_types::Timestamp {
        seconds: at.micros().div_euclid(MICROS_PER_SECOND),
        nanos: i32::try_from(nanos).expect("less than a second of nanoseconds fits"),
    }
}

/// An amount as the contracts carry it.
pub(crate) fn money(amount: Money) -> ProtoMoney {
    ProtoMoney { minor_units: amount.minor_units, currency: amount.currency.to_string() }
}

fn scheduled(event_id: EventId, version: i64, times: Times, items: &[Item]) -> proto::EventScheduled {
    proto::EventScheduled {
        event_id: event_id.to_string(),
        version,
        opens_at: Some(timestamp(times.opens_at())),
        closes_at: Some(timestamp(times.closes_at())),
        items: items.iter().map(scheduled_item).collect(),
    }
}

fn scheduled_item(item: &Item) -> proto::ScheduledItem {
    proto::ScheduledItem {
        item_id: item.id.to_string(),
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift.as_ref().map_or(0, |gift| gift.total_units),
        unit_price: Some(money(item.unit_price)),
    }
}

fn row(event_id: EventId, version: i64, message_type: &'static str, payload: &impl Message) -> OutboxMessage {
    OutboxMessage {
        aggregate_type: "event",
        aggregate_id: event_id.to_string(),
        aggregate_version: version,
        message_type,
        payload: payload.encode_to_vec(),
        traceparent: None,
    }
}
