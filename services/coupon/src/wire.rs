//! Kafka's payloads: what this service tells, encoded; what orders tell, decoded. Decides nothing.

use crate::domain::{Coupon, EndedOrder, OrderEnd, Outgoing};
use prost::Message as _;
use stampede_outbox::OutboxMessage;
use stampede_proto::message::v1 as message;
use stampede_vocab::{ParseIdError, Timestamp};

/// A payload that cannot be what its type says.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not this message at all.
    #[error("not a {0}: {1}")]
    Malformed(String, prost::DecodeError),
    /// An id that is none.
    #[error("the id {0:?} {1}")]
    Id(String, ParseIdError),
}

/// The message that tells this.
pub fn encode(outgoing: &Outgoing) -> OutboxMessage {
    match outgoing {
        Outgoing::CouponsIssued { campaign_id, version, coupons } => {
            let payload = message::CouponsIssued { coupons: coupons.iter().map(issued).collect() };
            OutboxMessage {
                aggregate_type: "campaign",
                aggregate_id: campaign_id.to_string(),
                aggregate_version: *version,
                message_type: "stampede.message.v1.CouponsIssued",
                payload: payload.encode_to_vec(),
                traceparent: None,
            }
        }
    }
}

fn issued(coupon: &Coupon) -> message::CouponIssued {
    message::CouponIssued {
        coupon_id: coupon.id.to_string(),
        campaign_id: coupon.campaign_id.to_string(),
        user_id: coupon.user_id.to_string(),
        rank: coupon.rank,
        issued_at: Some(timestamp(coupon.created_at)),
    }
}

/// The end of an order that a message tells; `None` for any other message, and for an order without a coupon.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<EndedOrder>, WireError> {
    let (order_id, coupon_id, end) = match message_type {
        "stampede.message.v1.OrderFulfilled" => {
            let told: message::OrderFulfilled = read(message_type, payload)?;
            (told.order_id, told.coupon_id, OrderEnd::Fulfilled)
        }
        "stampede.message.v1.OrderRejected" => {
            let told: message::OrderRejected = read(message_type, payload)?;
            (told.order_id, told.coupon_id, OrderEnd::Unsuccessful)
        }
        "stampede.message.v1.OrderCancelled" => {
            let told: message::OrderCancelled = read(message_type, payload)?;
            (told.order_id, told.coupon_id, OrderEnd::Unsuccessful)
        }
        "stampede.message.v1.OrderExpired" => {
            let told: message::OrderExpired = read(message_type, payload)?;
            (told.order_id, told.coupon_id, OrderEnd::Unsuccessful)
        }
        "stampede.message.v1.OrderRefunded" => {
            let told: message::OrderRefunded = read(message_type, payload)?;
            (told.order_id, told.coupon_id, OrderEnd::Unsuccessful)
        }
        _ => return Ok(None),
    };
    if coupon_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(EndedOrder { coupon_id: id(coupon_id)?, order_id: id(order_id)?, end }))
}

/// An instant as every contract carries it.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, micros) = (at.micros().div_euclid(1_000_000), at.micros().rem_euclid(1_000_000));
    let nanos = i32::try_from(micros * 1_000).expect("less than a second");
    prost_types::Timestamp { seconds, nanos }
}

fn read<M: prost::Message + Default>(message_type: &str, payload: &[u8]) -> Result<M, WireError> {
    M::decode(payload).map_err(|error| WireError::Malformed(message_type.to_owned(), error))
}

fn id<T: std::str::FromStr<Err = ParseIdError>>(text: String) -> Result<T, WireError> {
    text.parse().map_err(|error| WireError::Id(text, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Claim, RankedClaim};
    use stampede_vocab::{CampaignId, CouponId, OrderId, Reader, RequestId, UserId};
    use uuid::Uuid;

    fn order() -> OrderId {
        OrderId::from_uuid(Uuid::from_u128(7))
    }

    fn coupon() -> CouponId {
        CouponId::from_uuid(Uuid::from_u128(8))
    }

    fn campaign() -> CampaignId {
        CampaignId::from_uuid(Uuid::from_u128(1))
    }

    fn claimed(user: u128, rank: i32) -> Coupon {
        let (user_id, request_id) = (UserId::from_uuid(Uuid::from_u128(user)), RequestId::parse("a").unwrap());
        let claim = Claim { campaign_id: campaign(), user_id, request_id };
        let claimed_at = Timestamp::from_micros(1_500_000);
        RankedClaim { claim, rank, quota: rank, claimed_at, epoch: 1 }.coupon()
    }

    #[test]
    fn issued_coupons_are_told_under_their_campaign() {
        let coupons = vec![claimed(2, 3), claimed(4, 4)];
        let sent = encode(&Outgoing::CouponsIssued { campaign_id: campaign(), version: 7, coupons: coupons.clone() });
        assert_eq!((sent.aggregate_id, sent.aggregate_version), (campaign().to_string(), 7));
        let read = message::CouponsIssued::decode(sent.payload.as_slice()).unwrap().coupons;
        let ids: Vec<_> = read.iter().map(|told| told.coupon_id.clone()).collect();
        assert_eq!(ids, [coupons[0].id.to_string(), coupons[1].id.to_string()]);
        let issued_at = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
        assert_eq!((read[0].rank, read[0].issued_at), (3, Some(issued_at)));
    }

    #[test]
    fn the_largest_batch_fits_the_column_that_carries_it() {
        const LARGEST_BLOB: usize = 65_535;
        let coupons = (0..256).map(|n| claimed(u128::MAX - n, i32::MAX)).collect();
        let sent = encode(&Outgoing::CouponsIssued { campaign_id: campaign(), version: i64::MAX, coupons });
        assert!(sent.payload.len() < LARGEST_BLOB, "{} bytes", sent.payload.len());
    }

    #[test]
    fn every_end_of_an_order_is_understood() {
        let (order_id, coupon_id) = (order().to_string(), coupon().to_string());
        let rejected =
            message::OrderRejected { order_id: order_id.clone(), coupon_id: coupon_id.clone(), reason: String::new() };
        let cancelled = message::OrderCancelled { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let expired = message::OrderExpired { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let refunded = message::OrderRefunded { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let fulfilled = message::OrderFulfilled { order_id, coupon_id, ..Default::default() };
        let cases = [
            ("stampede.message.v1.OrderRejected", rejected.encode_to_vec(), OrderEnd::Unsuccessful),
            ("stampede.message.v1.OrderCancelled", cancelled.encode_to_vec(), OrderEnd::Unsuccessful),
            ("stampede.message.v1.OrderExpired", expired.encode_to_vec(), OrderEnd::Unsuccessful),
            ("stampede.message.v1.OrderRefunded", refunded.encode_to_vec(), OrderEnd::Unsuccessful),
            ("stampede.message.v1.OrderFulfilled", fulfilled.encode_to_vec(), OrderEnd::Fulfilled),
        ];
        for (message_type, payload, end) in cases {
            let ended = EndedOrder { coupon_id: coupon(), order_id: order(), end };
            assert_eq!(decode(message_type, &payload).unwrap(), Some(ended), "{message_type}");
        }
    }

    #[test]
    fn orders_without_a_coupon_and_other_messages_are_passed_over() {
        let plain = message::OrderExpired { order_id: order().to_string(), coupon_id: String::new() };
        assert_eq!(decode("stampede.message.v1.OrderExpired", &plain.encode_to_vec()).unwrap(), None);
        assert_eq!(decode("stampede.message.v1.OrderPlaced", b"?").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(decode("stampede.message.v1.OrderExpired", b"\xff").is_err());
        let broken = message::OrderExpired { order_id: order().to_string(), coupon_id: "cpn_1".to_owned() };
        assert!(decode("stampede.message.v1.OrderExpired", &broken.encode_to_vec()).is_err());
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood() {
        for message_type in Reader::all_of("coupon").flat_map(|(_, reader)| reader.message_types()) {
            assert!(decode(&message_type, b"\xff").is_err(), "{message_type} is passed over");
        }
    }
}
