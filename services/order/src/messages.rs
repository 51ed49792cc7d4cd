//! Kafka messages: encodes the outgoing ones and decodes the incoming ones. Decides nothing.

use crate::domain::{Cancellation, Input, Line, MessageBody, OutgoingMessage};
use prost::{Message as _, Name as _};
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    convert::{time, timestamp},
    message::v1 as proto,
    messages::{self, DecodeError, encode as encoded},
};
use stampede_vocab::{CouponId, InvalidField, ItemId, OrderId, field};

/// Most characters stored of another service's reason.
const MAX_REASON: usize = 64;

/// A message of another service.
#[derive(Clone)]
pub enum Incoming {
    /// An input of an order.
    Order(OrderId, Input),
    EventCancelled(Cancellation),
}

/// Encodes a message, with the trace of its cause.
pub fn encode(outgoing: &OutgoingMessage, traceparent: Option<String>) -> OutboxMessage {
    let order_id = outgoing.order.to_string();
    let (message_type, payload) = payload(order_id.clone(), &outgoing.body);
    OutboxMessage {
        aggregate_type: "order",
        aggregate_id: order_id,
        aggregate_version: outgoing.version,
        message_type,
        payload,
        traceparent,
    }
}

/// Decodes a message; `None` for a type that this service does not read.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<Incoming>, DecodeError> {
    let (order_id, input) = match messages::name(message_type) {
        Some(proto::StockCommitted::NAME) => {
            let committed = proto::StockCommitted::decode(payload)?;
            let gifts = field::each("lines", &committed.lines, gift_of_line)?;
            (committed.order_id, Input::StockCommitted { gifts })
        }
        Some(proto::StockRejected::NAME) => (proto::StockRejected::decode(payload)?.order_id, Input::StockRejected),
        Some(proto::PaymentApproved::NAME) => {
            let approved = proto::PaymentApproved::decode(payload)?;
            (approved.order_id, Input::PaymentApproved { attempt: approved.attempt })
        }
        Some(proto::PaymentDeclined::NAME) => {
            let declined = proto::PaymentDeclined::decode(payload)?;
            let code = capped(&declined.provider_code);
            (declined.order_id, Input::PaymentDeclined { attempt: declined.attempt, code })
        }
        Some(proto::PaymentRefunded::NAME) => {
            (proto::PaymentRefunded::decode(payload)?.order_id, Input::PaymentRefunded)
        }
        Some(proto::EventCancelled::NAME) => {
            let cancellation = cancellation(&proto::EventCancelled::decode(payload)?)?;
            return Ok(Some(Incoming::EventCancelled(cancellation)));
        }
        _ => return Ok(None),
    };
    Ok(Some(Incoming::Order(field::id("order_id", &order_id)?, input)))
}

fn cancellation(cancelled: &proto::EventCancelled) -> Result<Cancellation, InvalidField> {
    Ok(Cancellation {
        event: field::id("event_id", &cancelled.event_id)?,
        event_version: cancelled.version,
        refund_paid: cancelled.refund_paid_orders,
        cancel_time: time("cancel_time", cancelled.cancel_time)?,
    })
}

fn gift_of_line(line: &proto::OrderedLine) -> Result<(ItemId, i32), InvalidField> {
    Ok((field::id("item_id", &line.item_id)?, line.gift_units))
}

/// Truncates a reason to the length of its column.
fn capped(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

/// Returns the full name and the bytes of the message.
fn payload(order_id: String, body: &MessageBody) -> (String, Vec<u8>) {
    match body {
        MessageBody::Placed { buyer, event, lines, coupon, total, arrival, create_time, pay_deadline } => {
            encoded(&proto::OrderPlaced {
                order_id,
                user_id: buyer.to_string(),
                event_id: event.to_string(),
                lines: ordered_lines(lines),
                coupon_id: text(*coupon),
                total: Some((*total).into()),
                arrival: *arrival,
                create_time: Some(timestamp(*create_time)),
                pay_deadline: pay_deadline.map(timestamp),
            })
        }
        MessageBody::PaidLate { buyer, event, lines } => encoded(&proto::OrderPaidLate {
            order_id,
            user_id: buyer.to_string(),
            event_id: event.to_string(),
            lines: ordered_lines(lines),
        }),
        MessageBody::Cancelled { coupon } => encoded(&proto::OrderCancelled { order_id, coupon_id: text(*coupon) }),
        MessageBody::Expired { coupon } => encoded(&proto::OrderExpired { order_id, coupon_id: text(*coupon) }),
        MessageBody::Fulfilled { buyer, coupon, at } => encoded(&proto::OrderFulfilled {
            order_id,
            user_id: buyer.to_string(),
            coupon_id: text(*coupon),
            fulfill_time: Some(timestamp(*at)),
        }),
        MessageBody::Refunded { coupon } => encoded(&proto::OrderRefunded { order_id, coupon_id: text(*coupon) }),
        MessageBody::PaymentRequested { buyer, attempt, amount, method } => encoded(&proto::PaymentRequested {
            order_id,
            user_id: buyer.to_string(),
            attempt: *attempt,
            amount: Some((*amount).into()),
            payment_method: method.clone(),
        }),
        MessageBody::RefundRequested { amount } => {
            encoded(&proto::RefundRequested { order_id, amount: Some((*amount).into()) })
        }
    }
}

fn ordered_lines(lines: &[Line]) -> Vec<proto::OrderedLine> {
    let ordered = |line: &Line| proto::OrderedLine {
        item_id: line.item.to_string(),
        units: line.units.get(),
        gift_units: line.gift_units,
    };
    lines.iter().map(ordered).collect()
}

fn text(coupon: Option<CouponId>) -> String {
    coupon.map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{EventId, Money, Service, Timestamp, UserId};
    use uuid::Uuid;

    fn order() -> OrderId {
        OrderId::from_uuid(Uuid::from_u128(7))
    }

    #[test]
    fn messages_carry_the_order_and_its_version() {
        let outgoing = OutgoingMessage { order: order(), version: 4, body: MessageBody::Cancelled { coupon: None } };
        let sent = encode(&outgoing, None);
        assert_eq!((sent.aggregate_id.as_str(), sent.aggregate_version), (order().to_string().as_str(), 4));
        assert_eq!(sent.message_type, "stampede.message.v1.OrderCancelled");
        let read = proto::OrderCancelled::decode(sent.payload.as_slice()).unwrap();
        assert_eq!((read.order_id, read.coupon_id), (order().to_string(), String::new()));
    }

    #[test]
    fn every_message_has_its_name_in_the_contract() {
        let (buyer, event) = (UserId::from_uuid(Uuid::from_u128(1)), EventId::from_uuid(Uuid::from_u128(2)));
        let (lines, coupon, at) = (Vec::new(), None, Timestamp::from_micros(1));
        let amount = Money::new(1_999, "EUR".parse().unwrap());
        let placed = MessageBody::Placed {
            buyer,
            event,
            lines: lines.clone(),
            coupon,
            total: amount,
            arrival: 1,
            create_time: at,
            pay_deadline: None,
        };
        let bodies = [
            placed,
            MessageBody::PaidLate { buyer, event, lines },
            MessageBody::Cancelled { coupon },
            MessageBody::Expired { coupon },
            MessageBody::Fulfilled { buyer, coupon, at },
            MessageBody::Refunded { coupon },
            MessageBody::PaymentRequested { buyer, attempt: 1, amount, method: "pm_card_ok".to_owned() },
            MessageBody::RefundRequested { amount },
        ];
        let mut written = messages::written_by(Service::Order);
        for body in bodies {
            let (message_type, _) = payload(order().to_string(), &body);
            assert_eq!(messages::name(&message_type), Some(body.name()));
            written.retain(|other| *other != message_type);
        }
        assert_eq!(written, ["stampede.message.v1.OrderedLine"], "all the others are sent");
    }

    #[test]
    fn messages_of_others_become_inputs() {
        let declined = proto::PaymentDeclined {
            order_id: order().to_string(),
            attempt: 2,
            provider_code: "x".repeat(100),
            ..Default::default()
        };
        let decoded = decode("stampede.message.v1.PaymentDeclined", &declined.encode_to_vec()).unwrap();
        let Some(Incoming::Order(id, Input::PaymentDeclined { attempt: 2, code })) = decoded else {
            panic!("another input")
        };
        assert_eq!((id, code.len()), (order(), MAX_REASON));
        let cancelled = proto::EventCancelled {
            event_id: "evt_0000000000000000000000001a".to_owned(),
            version: 3,
            cancel_time: Some(timestamp(Timestamp::from_micros(1))),
            refund_paid_orders: true,
        };
        let decoded = decode("stampede.message.v1.EventCancelled", &cancelled.encode_to_vec()).unwrap();
        let Some(Incoming::EventCancelled(cancellation)) = decoded else { panic!("no cancellation") };
        assert_eq!((cancellation.event_version, cancellation.refund_paid), (3, true));
    }

    #[test]
    fn unknown_types_are_skipped_and_broken_payloads_are_not() {
        assert!(matches!(decode("stampede.message.v1.EventOpened", b"?"), Ok(None)));
        assert!(decode("stampede.message.v1.StockCommitted", b"\xff").is_err());
        let nobody = proto::StockCommitted { order_id: "ord_1".to_owned(), lines: Vec::new() };
        assert!(decode("stampede.message.v1.StockCommitted", &nobody.encode_to_vec()).is_err());
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood_and_no_other() {
        let taken: Vec<String> = messages::taken_by(Service::Order).collect();
        for message_type in Service::ALL.into_iter().flat_map(messages::written_by) {
            let is_understood = !matches!(decode(&message_type, b"\xff"), Ok(None));
            assert_eq!(is_understood, taken.contains(&message_type), "{message_type}");
        }
    }
}
