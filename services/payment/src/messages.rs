//! Kafka messages: encodes the outgoing ones and decodes those of orders. Decides nothing.

use crate::domain::{Action, MessageBody, OutgoingMessage};
use prost::{Message as _, Name as _};
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    convert::{decline_code, stored_amount},
    message::v1 as proto,
    messages::{self, DecodeError},
};
use stampede_vocab::{InvalidField, OrderId, field, limits::MAX_PAYMENT_METHOD_CHARS};

/// Returns the outbox row of this message.
pub fn encode(message: &OutgoingMessage) -> OutboxMessage {
    let payment_id = message.payment_id.to_string();
    let order_id = message.order_id.to_string();
    let (message_type, payload) = match &message.body {
        MessageBody::Approved { attempt, captured } => {
            let captured = Some((*captured).into());
            messages::encode(&proto::PaymentApproved { payment_id, order_id, attempt: *attempt, captured })
        }
        MessageBody::Declined { attempt, code } => {
            let (attempt, provider_code, decline_code) = (*attempt, code.clone(), decline_code(code).into());
            messages::encode(&proto::PaymentDeclined { payment_id, order_id, attempt, provider_code, decline_code })
        }
        MessageBody::Refunded { refunded } => {
            messages::encode(&proto::PaymentRefunded { payment_id, order_id, refunded: Some((*refunded).into()) })
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

/// Decodes a request of the order service: the order, and what is requested of its payment. `None` for a type that this
/// service does not read.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<(OrderId, Action)>, DecodeError> {
    let request = match messages::name(message_type) {
        Some(proto::PaymentRequested::NAME) => charge(proto::PaymentRequested::decode(payload)?)?,
        Some(proto::RefundRequested::NAME) => refund(&proto::RefundRequested::decode(payload)?)?,
        Some(proto::OrderExpired::NAME) => stop(&proto::OrderExpired::decode(payload)?.order_id)?,
        Some(proto::OrderCancelled::NAME) => stop(&proto::OrderCancelled::decode(payload)?.order_id)?,
        _ => return Ok(None),
    };
    Ok(Some(request))
}

fn charge(message: proto::PaymentRequested) -> Result<(OrderId, Action), InvalidField> {
    if message.attempt < 1 {
        return Err(InvalidField::new("attempt", "must be at least 1"));
    }
    if message.payment_method.chars().count() > MAX_PAYMENT_METHOD_CHARS {
        return Err(InvalidField::new("payment_method", "is too long"));
    }
    let action = Action::Charge {
        user_id: field::id("user_id", &message.user_id)?,
        attempt: message.attempt,
        amount: stored_amount("amount", message.amount.as_ref())?,
        payment_method: message.payment_method,
    };
    Ok((field::id("order_id", &message.order_id)?, action))
}

fn refund(message: &proto::RefundRequested) -> Result<(OrderId, Action), InvalidField> {
    let action = Action::Refund { amount: stored_amount("amount", message.amount.as_ref())? };
    Ok((field::id("order_id", &message.order_id)?, action))
}

fn stop(order: &str) -> Result<(OrderId, Action), InvalidField> {
    Ok((field::id("order_id", order)?, Action::Stop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_proto::r#type::v1::{DeclineCode, Money as ProtoMoney};
    use stampede_vocab::{PaymentId, Service};
    use uuid::Uuid;

    const ORDER: &str = "ord_0000000000000000000000001a";

    fn decoded(name: &str, payload: &[u8]) -> Result<Option<(OrderId, Action)>, DecodeError> {
        decode(&format!("stampede.message.v1.{name}"), payload)
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
    fn a_decline_is_published_by_the_list_and_in_the_words_of_the_provider() {
        for (code, listed) in [("order_ended", DeclineCode::OrderEnded), ("lost_card", DeclineCode::ProviderOther)] {
            let sent = encode(&OutgoingMessage {
                payment_id: PaymentId::from_uuid(Uuid::nil()),
                order_id: ORDER.parse().unwrap(),
                version: 2,
                traceparent: None,
                body: MessageBody::Declined { attempt: 1, code: code.to_owned() },
            });
            let read = proto::PaymentDeclined::decode(sent.payload.as_slice()).unwrap();
            assert_eq!((read.decline_code(), read.provider_code.as_str()), (listed, code));
        }
    }

    #[test]
    fn requests_of_the_order_service_are_decoded() {
        let (order_id, action) = decoded("PaymentRequested", &requested().encode_to_vec()).unwrap().unwrap();
        assert_eq!(order_id.uuid(), Uuid::from_u128(42));
        assert!(matches!(action, Action::Charge { attempt: 1, .. }));
        let longest = "ä".repeat(MAX_PAYMENT_METHOD_CHARS);
        let longest = proto::PaymentRequested { payment_method: longest, ..requested() };
        assert!(decoded("PaymentRequested", &longest.encode_to_vec()).is_ok());
        // A currency that nothing is sold in any more.
        let leva = Some(ProtoMoney { minor_units: 500, currency: "BGN".to_owned() });
        let refund = proto::RefundRequested { order_id: ORDER.to_owned(), amount: leva };
        let (_, refund) = decoded("RefundRequested", &refund.encode_to_vec()).unwrap().unwrap();
        assert!(matches!(refund, Action::Refund { .. }));
        for ended in ["OrderExpired", "OrderCancelled"] {
            let payload = proto::OrderExpired { order_id: ORDER.to_owned(), ..Default::default() }.encode_to_vec();
            assert_eq!(decoded(ended, &payload), Ok(Some((ORDER.parse().unwrap(), Action::Stop))));
        }
        assert_eq!(decoded("OrderPlaced", b""), Ok(None));
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
            match decoded("PaymentRequested", &bad.encode_to_vec()) {
                Err(DecodeError::Field(error)) => assert_eq!(error.field, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood_and_no_other() {
        let taken: Vec<String> = messages::taken_by(Service::Payment).collect();
        for message_type in Service::ALL.into_iter().flat_map(messages::written_by) {
            let is_understood = !matches!(decode(&message_type, b"\xff"), Ok(None));
            assert_eq!(is_understood, taken.contains(&message_type), "{message_type}");
        }
    }
}
