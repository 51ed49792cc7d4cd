//! What Kafka carries: messages of event and order into the domain, the ledger's answers out of it.

use crate::domain::{Answer, Ask, OrderedLine, OrderedUnits, Outgoing, Shelf, ShelfItem, Window, Withdrawal};
use prost::Message as _;
use stampede_outbox::OutboxMessage;
use stampede_proto::{message::v1 as proto, r#type::v1::Money as ProtoMoney};
use stampede_vocab::{InvalidField, Money, OrderId, Timestamp};
use std::{fmt::Display, str::FromStr};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// A message that concerns the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// An event puts its items on the shelf, or moves its window.
    Shelve(Shelf),
    /// An event was cancelled.
    Withdraw(Withdrawal),
    /// An order asks the ledger for something.
    Ledger(Ask),
}

/// A payload that can't be read as what its type says.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not protobuf, or of another message.
    #[error("the payload does not decode: {0}")]
    Payload(#[from] prost::DecodeError),
    /// A field has a value that cannot be.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

/// Reads a message; `None` if it does not concern the stock.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<Incoming>, Unreadable> {
    let released = |order_id: String| parse("order_id", &order_id).map(|id| Incoming::Ledger(Ask::Release(id)));
    let incoming = match message_type {
        "stampede.message.v1.EventScheduled" => Incoming::Shelve(shelf(proto::EventScheduled::decode(payload)?)?),
        "stampede.message.v1.EventCancelled" => {
            Incoming::Withdraw(withdrawal(&proto::EventCancelled::decode(payload)?)?)
        }
        "stampede.message.v1.OrderPlaced" => {
            let placed = proto::OrderPlaced::decode(payload)?;
            let order = (placed.order_id, placed.user_id, placed.event_id);
            Incoming::Ledger(Ask::Commit(ordered_units(order, placed.arrival, placed.lines)?))
        }
        "stampede.message.v1.OrderPaidLate" => {
            let paid = proto::OrderPaidLate::decode(payload)?;
            let order = (paid.order_id, paid.user_id, paid.event_id);
            Incoming::Ledger(Ask::CommitAgain(ordered_units(order, 0, paid.lines)?))
        }
        "stampede.message.v1.OrderCancelled" => released(proto::OrderCancelled::decode(payload)?.order_id)?,
        "stampede.message.v1.OrderExpired" => released(proto::OrderExpired::decode(payload)?.order_id)?,
        "stampede.message.v1.OrderRejected" => released(proto::OrderRejected::decode(payload)?.order_id)?,
        "stampede.message.v1.OrderRefunded" => released(proto::OrderRefunded::decode(payload)?.order_id)?,
        _ => return Ok(None),
    };
    Ok(Some(incoming))
}

/// The row of the outbox for this answer.
pub fn encode(message: &Outgoing) -> OutboxMessage {
    let order_id = message.order_id.to_string();
    let (message_type, payload) = match message.answer {
        Answer::Committed => {
            let committed = proto::StockCommitted { order_id: order_id.clone() };
            ("stampede.message.v1.StockCommitted", committed.encode_to_vec())
        }
        Answer::Rejected { reason, item_id } => {
            let (reason, item_id) = (reason.as_str().to_owned(), item_id.to_string());
            let rejected = proto::StockRejected { order_id: order_id.clone(), reason, item_id };
            ("stampede.message.v1.StockRejected", rejected.encode_to_vec())
        }
    };
    OutboxMessage {
        aggregate_type: "stock",
        aggregate_id: order_id,
        aggregate_version: message.sequence,
        message_type,
        payload,
        traceparent: message.traceparent.clone(),
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

/// The instant in a field.
pub(crate) fn instant(field: &str, value: Option<prost_types::Timestamp>) -> Result<Timestamp, InvalidField> {
    let value = value.ok_or_else(|| InvalidField::new(field, "must be set"))?;
    let micros = value.seconds.checked_mul(MICROS_PER_SECOND);
    micros
        .and_then(|micros| micros.checked_add(i64::from(value.nanos / 1_000)))
        .map(Timestamp::from_micros)
        .ok_or_else(|| InvalidField::new(field, "is out of range"))
}

/// The amount in a field.
pub(crate) fn money(field: &str, value: Option<ProtoMoney>) -> Result<Money, InvalidField> {
    let value = value.ok_or_else(|| InvalidField::new(field, "must be set"))?;
    let currency = value.currency.parse().map_err(|error: InvalidField| error.within(field))?;
    Ok(Money::new(value.minor_units, currency))
}

/// The id, or whatever else reads from text, in a field.
pub(crate) fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, InvalidField> {
    text.parse().map_err(|error: T::Err| InvalidField::new(field, error.to_string()))
}

fn shelf(event: proto::EventScheduled) -> Result<Shelf, InvalidField> {
    let window = Window::new(instant("opens_at", event.opens_at)?, instant("closes_at", event.closes_at)?)?;
    let items = event.items.into_iter().map(shelf_item).collect::<Result<_, _>>()?;
    Shelf::new(parse("event_id", &event.event_id)?, event.version, window, items)
}

fn shelf_item(item: proto::ScheduledItem) -> Result<ShelfItem, InvalidField> {
    ShelfItem {
        item_id: parse("item_id", &item.item_id)?,
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift_total_units,
        unit_price: money("unit_price", item.unit_price)?,
    }
    .checked()
}

fn withdrawal(event: &proto::EventCancelled) -> Result<Withdrawal, InvalidField> {
    Ok(Withdrawal {
        event_id: parse("event_id", &event.event_id)?,
        event_version: event.version,
        cancelled_at: instant("cancelled_at", event.cancelled_at)?,
    })
}

fn ordered_units(
    (order_id, user_id, event_id): (String, String, String),
    arrival: i64,
    lines: Vec<proto::OrderedLine>,
) -> Result<OrderedUnits, InvalidField> {
    let order_id: OrderId = parse("order_id", &order_id)?;
    if lines.is_empty() {
        return Err(InvalidField::new("lines", "must be at least one"));
    }
    Ok(OrderedUnits {
        order_id,
        user_id: parse("user_id", &user_id)?,
        event_id: parse("event_id", &event_id)?,
        arrival,
        lines: lines.iter().map(ordered_line).collect::<Result<_, _>>()?,
    })
}

fn ordered_line(line: &proto::OrderedLine) -> Result<OrderedLine, InvalidField> {
    if line.units < 1 || line.gift_units < 0 {
        return Err(InvalidField::new("lines.units", format!("{} and gifts {}", line.units, line.gift_units)));
    }
    let item_id = parse("item_id", &line.item_id)?;
    Ok(OrderedLine { item_id, units: line.units, gift_units: line.gift_units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RejectReason;
    use stampede_vocab::{ItemId, Reader};

    const ORDER: &str = "ord_0000000000000000000000001a";

    #[test]
    fn a_message_of_an_unknown_type_is_passed_over() {
        assert_eq!(decode("stampede.message.v1.OrderFulfilled", &[]).unwrap(), None);
    }

    #[test]
    fn what_does_not_decode_names_what_is_wrong() {
        let cancelled = proto::OrderCancelled { order_id: "ord_x".into(), coupon_id: String::new() };
        let error = decode("stampede.message.v1.OrderCancelled", &cancelled.encode_to_vec()).unwrap_err();
        assert!(error.to_string().starts_with("order_id"), "{error}");
        assert!(decode("stampede.message.v1.OrderCancelled", &[0xff]).is_err());
    }

    #[test]
    fn every_end_of_an_order_gives_its_units_back() {
        let payload = proto::OrderCancelled { order_id: ORDER.into(), coupon_id: String::new() }.encode_to_vec();
        for end in ["Cancelled", "Expired", "Rejected", "Refunded"] {
            let incoming = decode(&format!("stampede.message.v1.Order{end}"), &payload).unwrap();
            assert_eq!(incoming, Some(Incoming::Ledger(Ask::Release(ORDER.parse().unwrap()))), "{end}");
        }
    }

    #[test]
    fn an_answer_carries_its_reason_and_item() {
        let item_id: ItemId = "itm_0000000000000000000000001a".parse().unwrap();
        let answer = Answer::Rejected { reason: RejectReason::LimitReached, item_id };
        let row = encode(&Outgoing { order_id: ORDER.parse().unwrap(), sequence: 1, answer, traceparent: None });
        assert_eq!((row.aggregate_id.as_str(), row.message_type), (ORDER, "stampede.message.v1.StockRejected"));
        let sent = proto::StockRejected::decode(&row.payload[..]).unwrap();
        assert_eq!((sent.reason.as_str(), sent.item_id), ("LIMIT_REACHED", item_id.to_string()));
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood() {
        for message_type in Reader::all_of("inventory").flat_map(|(_, reader)| reader.message_types()) {
            assert!(decode(&message_type, b"\xff").is_err(), "{message_type} is passed over");
        }
    }
}
