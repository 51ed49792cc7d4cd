//! Kafka's payloads: the news of this service encoded, the messages of others decoded. Decides nothing.

use crate::domain::{Input, Line, News, Outgoing};
use prost::Message as _;
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    message::v1 as message,
    r#type::v1::{self as kind},
};
use stampede_vocab::{CouponId, Money, OrderId, Timestamp};

/// Most characters kept of a reason that another service gives.
const MAX_REASON: usize = 64;

/// A payload that cannot be what its type says.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not this message at all.
    #[error("is not a {0}: {1}")]
    Malformed(String, prost::DecodeError),
    /// Its order id is none.
    #[error("has the order id {0:?}, which {1}")]
    OrderId(String, stampede_vocab::ParseIdError),
}

/// The message that tells this news, in the trace of what caused it.
pub fn encode(outgoing: &Outgoing, traceparent: Option<String>) -> OutboxMessage {
    let order_id = outgoing.order.to_string();
    OutboxMessage {
        aggregate_type: "order",
        aggregate_id: order_id.clone(),
        aggregate_version: outgoing.version,
        message_type: message_type(&outgoing.news),
        payload: payload(order_id, &outgoing.news),
        traceparent,
    }
}

/// The input that a message is; `None` for a type that this service does not follow.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<(OrderId, Input)>, WireError> {
    let (order_id, input) = match message_type {
        "stampede.message.v1.StockCommitted" => {
            let told: message::StockCommitted = read(message_type, payload)?;
            (told.order_id, Input::StockCommitted)
        }
        "stampede.message.v1.StockRejected" => {
            let told: message::StockRejected = read(message_type, payload)?;
            (told.order_id, Input::StockRejected { reason: capped(&told.reason) })
        }
        "stampede.message.v1.PaymentApproved" => {
            let told: message::PaymentApproved = read(message_type, payload)?;
            (told.order_id, Input::PaymentApproved { attempt: told.attempt })
        }
        "stampede.message.v1.PaymentDeclined" => {
            let told: message::PaymentDeclined = read(message_type, payload)?;
            (told.order_id, Input::PaymentDeclined { attempt: told.attempt, code: capped(&told.decline_code) })
        }
        "stampede.message.v1.PaymentRefunded" => {
            let told: message::PaymentRefunded = read(message_type, payload)?;
            (told.order_id, Input::PaymentRefunded)
        }
        _ => return Ok(None),
    };
    let order = order_id.parse().map_err(|error| WireError::OrderId(order_id, error))?;
    Ok(Some((order, input)))
}

fn read<M: prost::Message + Default>(message_type: &str, payload: &[u8]) -> Result<M, WireError> {
    M::decode(payload).map_err(|error| WireError::Malformed(message_type.to_owned(), error))
}

/// As much as the column holds.
fn capped(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

const fn message_type(news: &News) -> &'static str {
    match news {
        News::Placed { .. } => "stampede.message.v1.OrderPlaced",
        News::PaidLate { .. } => "stampede.message.v1.OrderPaidLate",
        News::Rejected { .. } => "stampede.message.v1.OrderRejected",
        News::Cancelled { .. } => "stampede.message.v1.OrderCancelled",
        News::Expired { .. } => "stampede.message.v1.OrderExpired",
        News::Fulfilled { .. } => "stampede.message.v1.OrderFulfilled",
        News::Refunded { .. } => "stampede.message.v1.OrderRefunded",
        News::PaymentRequested { .. } => "stampede.message.v1.PaymentRequested",
        News::RefundRequested { .. } => "stampede.message.v1.RefundRequested",
    }
}

fn payload(order_id: String, news: &News) -> Vec<u8> {
    match news {
        News::Placed { buyer, event, lines, coupon, total, arrival, placed_at } => message::OrderPlaced {
            order_id,
            user_id: buyer.to_string(),
            event_id: event.to_string(),
            lines: ordered_lines(lines),
            coupon_id: text(*coupon),
            total: Some(money(*total)),
            arrival: *arrival,
            placed_at: Some(timestamp(*placed_at)),
        }
        .encode_to_vec(),
        News::PaidLate { buyer, event, lines } => message::OrderPaidLate {
            order_id,
            user_id: buyer.to_string(),
            event_id: event.to_string(),
            lines: ordered_lines(lines),
        }
        .encode_to_vec(),
        News::Rejected { coupon, reason } => {
            message::OrderRejected { order_id, coupon_id: text(*coupon), reason: reason.clone() }.encode_to_vec()
        }
        News::Cancelled { coupon } => message::OrderCancelled { order_id, coupon_id: text(*coupon) }.encode_to_vec(),
        News::Expired { coupon } => message::OrderExpired { order_id, coupon_id: text(*coupon) }.encode_to_vec(),
        News::Fulfilled { buyer, coupon, at } => message::OrderFulfilled {
            order_id,
            user_id: buyer.to_string(),
            coupon_id: text(*coupon),
            fulfilled_at: Some(timestamp(*at)),
        }
        .encode_to_vec(),
        News::Refunded { coupon } => message::OrderRefunded { order_id, coupon_id: text(*coupon) }.encode_to_vec(),
        News::PaymentRequested { buyer, attempt, amount, method } => message::PaymentRequested {
            order_id,
            user_id: buyer.to_string(),
            attempt: *attempt,
            amount: Some(money(*amount)),
            payment_method: method.clone(),
        }
        .encode_to_vec(),
        News::RefundRequested { amount } => {
            message::RefundRequested { order_id, amount: Some(money(*amount)) }.encode_to_vec()
        }
    }
}

fn ordered_lines(lines: &[Line]) -> Vec<message::OrderedLine> {
    let ordered = |line: &Line| message::OrderedLine {
        item_id: line.item.to_string(),
        units: line.units.get(),
        gift_units: line.gift_units,
    };
    lines.iter().map(ordered).collect()
}

fn text(coupon: Option<CouponId>) -> String {
    coupon.map(|id| id.to_string()).unwrap_or_default()
}

/// Money as every contract carries it.
pub fn money(money: Money) -> kind::Money {
    kind::Money { minor_units: money.minor_units, currency: money.currency.as_str().to_owned() }
}

/// An instant as every contract carries it.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, micros) = (at.micros().div_euclid(1_000_000), at.micros().rem_euclid(1_000_000));
    let nanos = i32::try_from(micros * 1_000).expect("less than a second");
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Reader;
    use uuid::Uuid;

    fn order() -> OrderId {
        OrderId::from_uuid(Uuid::from_u128(7))
    }

    #[test]
    fn news_carry_the_order_and_its_version() {
        let outgoing = Outgoing { order: order(), version: 4, news: News::Cancelled { coupon: None } };
        let sent = encode(&outgoing, None);
        assert_eq!((sent.aggregate_id.as_str(), sent.aggregate_version), (order().to_string().as_str(), 4));
        assert_eq!(sent.message_type, "stampede.message.v1.OrderCancelled");
        let read = message::OrderCancelled::decode(sent.payload.as_slice()).unwrap();
        assert_eq!((read.order_id, read.coupon_id), (order().to_string(), String::new()));
    }

    #[test]
    fn messages_of_others_become_inputs() {
        let declined = message::PaymentDeclined {
            order_id: order().to_string(),
            attempt: 2,
            decline_code: "x".repeat(100),
            ..Default::default()
        };
        let decoded = decode("stampede.message.v1.PaymentDeclined", &declined.encode_to_vec()).unwrap();
        let Some((id, Input::PaymentDeclined { attempt: 2, code })) = decoded else { panic!("another input") };
        assert_eq!((id, code.len()), (order(), MAX_REASON));
    }

    #[test]
    fn unknown_types_are_skipped_and_broken_payloads_are_not() {
        assert!(matches!(decode("stampede.message.v1.EventOpened", b"?"), Ok(None)));
        assert!(decode("stampede.message.v1.StockCommitted", b"\xff").is_err());
        let nobody = message::StockCommitted { order_id: "ord_1".to_owned() };
        assert!(decode("stampede.message.v1.StockCommitted", &nobody.encode_to_vec()).is_err());
    }

    #[test]
    fn instants_before_the_epoch_keep_their_nanos_positive() {
        let at = timestamp(Timestamp::from_micros(-1));
        assert_eq!((at.seconds, at.nanos), (-1, 999_999_000));
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood() {
        for message_type in Reader::all_of("order").flat_map(|(_, reader)| reader.message_types()) {
            assert!(decode(&message_type, b"\xff").is_err(), "{message_type} is passed over");
        }
    }
}
