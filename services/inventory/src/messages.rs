//! Converts Kafka messages: those of event and order to the domain, the ledger's answers to protobuf.

use crate::domain::{
    LedgerCommand, MessageBody, Offered, OrderedLine, OrderedUnits, OutgoingMessage, RejectReason, Shelf, ShelfItem,
    Titles, Window, Withdrawal,
};
use prost::{Message as _, Name as _};
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    convert::{stored_money, time},
    message::v1 as proto,
    messages::{self, DecodeError},
};
use stampede_vocab::{InvalidField, ItemId, OrderId, field};

/// Aggregate version of the answer to a late payment. Version 1 was the answer to a placed order, which earlier
/// releases sent.
const LATE_ANSWER_VERSION: i64 = 2;
/// Aggregate version of the answer to a late payment whose units were committed and given back since: it follows the
/// first answer.
const GIVEN_BACK_VERSION: i64 = 3;

/// A message that concerns the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// An event offers its items, or moves its window.
    Shelve(Shelf),
    /// An event was cancelled.
    Withdraw(Withdrawal),
    /// An order requests a change of the ledger.
    Ledger(LedgerCommand),
}

/// Decodes a message; `None` if it does not concern the stock.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<Incoming>, DecodeError> {
    let unpaid = |order_id: String| {
        field::id("order_id", &order_id).map(|id| Incoming::Ledger(LedgerCommand::ReleaseUnpaid(id)))
    };
    let incoming = match messages::name(message_type) {
        Some(proto::EventScheduled::NAME) => Incoming::Shelve(shelf(proto::EventScheduled::decode(payload)?)?),
        Some(proto::EventCancelled::NAME) => Incoming::Withdraw(withdrawal(&proto::EventCancelled::decode(payload)?)?),
        Some(proto::OrderPaidLate::NAME) => {
            let paid = proto::OrderPaidLate::decode(payload)?;
            let order = (paid.order_id, paid.user_id, paid.event_id);
            Incoming::Ledger(LedgerCommand::CommitAgain(ordered_units(order, paid.lines)?))
        }
        Some(proto::OrderCancelled::NAME) => unpaid(proto::OrderCancelled::decode(payload)?.order_id)?,
        Some(proto::OrderExpired::NAME) => unpaid(proto::OrderExpired::decode(payload)?.order_id)?,
        Some(proto::OrderRefunded::NAME) => {
            let refunded = proto::OrderRefunded::decode(payload)?;
            Incoming::Ledger(LedgerCommand::Release(field::id("order_id", &refunded.order_id)?))
        }
        _ => return Ok(None),
    };
    Ok(Some(incoming))
}

/// Returns the outbox row of this answer.
pub fn encode(message: &OutgoingMessage) -> OutboxMessage {
    let order_id = message.order_id.to_string();
    let reject = |reason: RejectReason, item_id: ItemId| {
        let (reason, item_id) = (reject_reason(reason).into(), item_id.to_string());
        messages::encode(&proto::StockRejected { order_id: order_id.clone(), reason, item_id })
    };
    let (aggregate_version, (message_type, payload)) = match &message.body {
        MessageBody::Committed { lines } => {
            let line = |line: &OrderedLine| proto::OrderedLine {
                item_id: line.item_id.to_string(),
                units: line.units,
                gift_units: line.gift_units,
            };
            let lines = lines.iter().map(line).collect();
            (LATE_ANSWER_VERSION, messages::encode(&proto::StockCommitted { order_id: order_id.clone(), lines }))
        }
        MessageBody::Rejected { reason, item_id } => (LATE_ANSWER_VERSION, reject(*reason, *item_id)),
        MessageBody::GivenBack { item_id } => (GIVEN_BACK_VERSION, reject(RejectReason::SoldOut, *item_id)),
    };
    OutboxMessage {
        aggregate_type: "stock",
        aggregate_id: order_id,
        aggregate_version,
        message_type,
        payload,
        traceparent: message.traceparent.clone(),
    }
}

const fn reject_reason(reason: RejectReason) -> proto::StockRejectReason {
    match reason {
        RejectReason::SoldOut => proto::StockRejectReason::SoldOut,
        RejectReason::LimitReached => proto::StockRejectReason::LimitReached,
    }
}

fn shelf(event: proto::EventScheduled) -> Result<Shelf, InvalidField> {
    let window = Window::new(time("open_time", event.open_time)?, time("close_time", event.close_time)?)?;
    let items = field::each("items", event.items, offered)?;
    Shelf::new(field::id("event_id", &event.event_id)?, event.version, window, items)
}

fn offered(item: proto::ScheduledItem) -> Result<Offered, InvalidField> {
    let numbers = ShelfItem {
        item_id: field::id("item_id", &item.item_id)?,
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift_total_units,
        unit_price: stored_money("unit_price", item.unit_price.as_ref())?,
    };
    Ok(Offered { item: numbers.checked()?, titles: Titles::new(item.title, item.gift_title)? })
}

fn withdrawal(event: &proto::EventCancelled) -> Result<Withdrawal, InvalidField> {
    Ok(Withdrawal {
        event_id: field::id("event_id", &event.event_id)?,
        event_version: event.version,
        cancel_time: time("cancel_time", event.cancel_time)?,
    })
}

fn ordered_units(
    (order_id, user_id, event_id): (String, String, String),
    lines: Vec<proto::OrderedLine>,
) -> Result<OrderedUnits, InvalidField> {
    let order_id: OrderId = field::id("order_id", &order_id)?;
    if lines.is_empty() {
        return Err(InvalidField::new("lines", "must be at least one"));
    }
    Ok(OrderedUnits {
        order_id,
        user_id: field::id("user_id", &user_id)?,
        event_id: field::id("event_id", &event_id)?,
        lines: field::each("lines", &lines, ordered_line)?,
    })
}

fn ordered_line(line: &proto::OrderedLine) -> Result<OrderedLine, InvalidField> {
    if line.units < 1 || line.gift_units < 0 {
        return Err(InvalidField::new("lines.units", format!("{} and gifts {}", line.units, line.gift_units)));
    }
    let item_id = field::id("item_id", &line.item_id)?;
    Ok(OrderedLine { item_id, units: line.units, gift_units: line.gift_units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Service;

    const ORDER: &str = "ord_0000000000000000000000001a";

    #[test]
    fn a_message_of_an_unknown_type_is_skipped() {
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
        let order_id: OrderId = ORDER.parse().unwrap();
        let unpaid = LedgerCommand::ReleaseUnpaid(order_id);
        for (end, command) in
            [("Cancelled", unpaid.clone()), ("Expired", unpaid), ("Refunded", LedgerCommand::Release(order_id))]
        {
            let incoming = decode(&format!("stampede.message.v1.Order{end}"), &payload).unwrap();
            assert_eq!(incoming, Some(Incoming::Ledger(command)), "{end}");
        }
    }

    #[test]
    fn an_answer_carries_its_reason_and_item() {
        let item_id: ItemId = "itm_0000000000000000000000001a".parse().unwrap();
        let body = MessageBody::Rejected { reason: RejectReason::LimitReached, item_id };
        let row = encode(&OutgoingMessage { order_id: ORDER.parse().unwrap(), body, traceparent: None });
        assert_eq!(
            (row.aggregate_id.as_str(), row.message_type.as_str()),
            (ORDER, "stampede.message.v1.StockRejected")
        );
        let sent = proto::StockRejected::decode(&row.payload[..]).unwrap();
        assert_eq!((sent.reason(), &sent.item_id), (proto::StockRejectReason::LimitReached, &item_id.to_string()));
    }

    #[test]
    fn an_answer_that_differs_from_the_first_has_a_later_version() {
        let item_id: ItemId = "itm_0000000000000000000000001a".parse().unwrap();
        let version = |body| {
            encode(&OutgoingMessage { order_id: ORDER.parse().unwrap(), body, traceparent: None }).aggregate_version
        };
        let first = version(MessageBody::Committed { lines: Vec::new() });
        assert!(version(MessageBody::GivenBack { item_id }) > first);
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood_and_no_other() {
        let taken: Vec<String> = messages::taken_by(Service::Inventory).collect();
        for message_type in Service::ALL.into_iter().flat_map(messages::written_by) {
            let is_understood = !matches!(decode(&message_type, b"\xff"), Ok(None));
            assert_eq!(is_understood, taken.contains(&message_type), "{message_type}");
        }
    }
}
