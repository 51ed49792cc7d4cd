//! What Kafka carries: the service's messages as protobuf, those of the order service as values, and the forms that
//! every contract shares.

use crate::domain::{Ask, Fact, OrderNews, Outgoing};
use prost::Message as _;
use stampede_inbox::Message;
use stampede_outbox::OutboxMessage;
use stampede_proto::{message::v1 as proto, r#type::v1::Money as ProtoMoney};
use stampede_vocab::{InvalidField, Money, OrderId, Timestamp, limits::MAX_PAYMENT_METHOD_CHARS};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// It is not protobuf, or of another message.
    #[error("{0}")]
    Payload(#[from] prost::DecodeError),
    /// A field has a value that cannot be.
    #[error("{0}")]
    Field(#[from] InvalidField),
}

/// The row of the outbox for this message.
pub fn encode(message: &Outgoing) -> OutboxMessage {
    let payment_id = message.payment_id.to_string();
    let order_id = message.order_id.to_string();
    let (message_type, payload) = match &message.fact {
        Fact::Approved { attempt, captured } => {
            let captured = Some(money(*captured));
            let approved = proto::PaymentApproved { payment_id, order_id, attempt: *attempt, captured };
            ("stampede.message.v1.PaymentApproved", approved.encode_to_vec())
        }
        Fact::Declined { attempt, code } => {
            let decline_code = code.clone();
            let declined = proto::PaymentDeclined { payment_id, order_id, attempt: *attempt, decline_code };
            ("stampede.message.v1.PaymentDeclined", declined.encode_to_vec())
        }
        Fact::Refunded { refunded } => {
            let refunded = proto::PaymentRefunded { payment_id, order_id, refunded: Some(money(*refunded)) };
            ("stampede.message.v1.PaymentRefunded", refunded.encode_to_vec())
        }
    };
    OutboxMessage {
        aggregate_type: "payment",
        aggregate_id: message.payment_id.to_string(),
        aggregate_version: message.version,
        message_type,
        payload,
        traceparent: message.traceparent.clone(),
    }
}

/// What a message of the order service asks for; `None` if it is none of this service's business.
pub fn decode(message: &Message) -> Result<Option<OrderNews>, Unreadable> {
    let payload = message.payload.as_slice();
    let (order_id, ask) = match message.message_type.as_str() {
        "stampede.message.v1.PaymentRequested" => charge(proto::PaymentRequested::decode(payload)?)?,
        "stampede.message.v1.RefundRequested" => refund(&proto::RefundRequested::decode(payload)?)?,
        "stampede.message.v1.OrderExpired" => stop(&proto::OrderExpired::decode(payload)?.order_id)?,
        "stampede.message.v1.OrderCancelled" => stop(&proto::OrderCancelled::decode(payload)?.order_id)?,
        _ => return Ok(None),
    };
    Ok(Some(OrderNews { order_id, ask, traceparent: message.traceparent.clone() }))
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

fn charge(message: proto::PaymentRequested) -> Result<(OrderId, Ask), InvalidField> {
    let user_id = message.user_id.parse().map_err(|error| InvalidField::new("user_id", format!("{error}")))?;
    if message.attempt < 1 {
        return Err(InvalidField::new("attempt", "must be at least 1"));
    }
    if message.payment_method.chars().count() > MAX_PAYMENT_METHOD_CHARS {
        return Err(InvalidField::new("payment_method", "is too long"));
    }
    let ask = Ask::Charge {
        user_id,
        attempt: message.attempt,
        amount: amount(message.amount.as_ref())?,
        payment_method: message.payment_method,
    };
    Ok((order_id(&message.order_id)?, ask))
}

fn refund(message: &proto::RefundRequested) -> Result<(OrderId, Ask), InvalidField> {
    Ok((order_id(&message.order_id)?, Ask::Refund { amount: amount(message.amount.as_ref())? }))
}

fn stop(order: &str) -> Result<(OrderId, Ask), InvalidField> {
    Ok((order_id(order)?, Ask::Stop))
}

fn order_id(text: &str) -> Result<OrderId, InvalidField> {
    text.parse().map_err(|error| InvalidField::new("order_id", format!("{error}")))
}

fn amount(amount: Option<&ProtoMoney>) -> Result<Money, InvalidField> {
    let amount = amount.ok_or_else(|| InvalidField::new("amount", "must be set"))?;
    if amount.minor_units < 0 {
        return Err(InvalidField::new("amount.minor_units", "must not be negative"));
    }
    let currency = amount.currency.parse().map_err(|error: InvalidField| error.within("amount"))?;
    Ok(Money::new(amount.minor_units, currency))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Reader;
    use uuid::Uuid;

    const ORDER: &str = "ord_0000000000000000000000001a";

    fn message(message_type: &str, payload: Vec<u8>) -> Message {
        Message {
            source: "/stampede/order".to_owned(),
            id: 1,
            message_type: format!("stampede.message.v1.{message_type}"),
            key: ORDER.to_owned(),
            payload,
            traceparent: None,
            topic: "stampede.order".to_owned(),
            partition: 0,
            offset: 0,
        }
    }

    fn requested() -> proto::PaymentRequested {
        proto::PaymentRequested {
            order_id: ORDER.to_owned(),
            user_id: "usr_0000000000000000000000001a".to_owned(),
            attempt: 1,
            amount: Some(ProtoMoney { minor_units: 500, currency: "EUR".to_owned() }),
            payment_method: "pm_card_ok".to_owned(),
        }
    }

    #[test]
    fn what_the_order_service_asks_is_read() {
        let news = decode(&message("PaymentRequested", requested().encode_to_vec())).unwrap().unwrap();
        assert_eq!(news.order_id.uuid(), Uuid::from_u128(42));
        assert!(matches!(news.ask, Ask::Charge { attempt: 1, .. }));
        let longest = "ä".repeat(MAX_PAYMENT_METHOD_CHARS);
        let longest = proto::PaymentRequested { payment_method: longest, ..requested() };
        assert!(decode(&message("PaymentRequested", longest.encode_to_vec())).is_ok());
        for ended in ["OrderExpired", "OrderCancelled"] {
            let payload = proto::OrderExpired { order_id: ORDER.to_owned(), ..Default::default() }.encode_to_vec();
            assert_eq!(decode(&message(ended, payload)).unwrap().unwrap().ask, Ask::Stop);
        }
        assert_eq!(decode(&message("OrderPlaced", Vec::new())), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let money = |minor_units, currency: &str| Some(ProtoMoney { minor_units, currency: currency.to_owned() });
        for (field, bad) in [
            ("order_id", proto::PaymentRequested { order_id: "x".to_owned(), ..requested() }),
            ("user_id", proto::PaymentRequested { user_id: String::new(), ..requested() }),
            ("attempt", proto::PaymentRequested { attempt: 0, ..requested() }),
            ("amount", proto::PaymentRequested { amount: None, ..requested() }),
            ("amount.minor_units", proto::PaymentRequested { amount: money(-1, "EUR"), ..requested() }),
            ("amount.currency", proto::PaymentRequested { amount: money(1, "eur"), ..requested() }),
            (
                "payment_method",
                proto::PaymentRequested { payment_method: "x".repeat(MAX_PAYMENT_METHOD_CHARS + 1), ..requested() },
            ),
        ] {
            match decode(&message("PaymentRequested", bad.encode_to_vec())) {
                Err(Unreadable::Field(error)) => assert_eq!(error.field, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood() {
        for message_type in Reader::all_of("payment").flat_map(|(_, reader)| reader.message_types()) {
            assert!(
                decode(&message(message_type.rsplit('.').next().unwrap(), vec![0xff])).is_err(),
                "{message_type} is passed over"
            );
        }
    }
}
