//! Encodes the messages of this service for Kafka, and decodes those of orders. Decides nothing.

use crate::domain::{Coupon, EndedOrder, OrderEnd, OutgoingMessage};
use prost::{Message as _, Name as _};
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    convert::timestamp,
    message::v1 as proto,
    messages::{self, DecodeError},
};
use stampede_vocab::field;

pub fn encode(outgoing: &OutgoingMessage) -> OutboxMessage {
    match outgoing {
        OutgoingMessage::CouponsIssued { campaign_id, version, coupons } => {
            let issued = proto::CouponsIssued { coupons: coupons.iter().map(issued).collect() };
            let (message_type, payload) = messages::encode(&issued);
            OutboxMessage {
                aggregate_type: "campaign",
                aggregate_id: campaign_id.to_string(),
                aggregate_version: *version,
                message_type,
                payload,
                traceparent: None,
            }
        }
    }
}

fn issued(coupon: &Coupon) -> proto::CouponIssued {
    proto::CouponIssued {
        coupon_id: coupon.id.to_string(),
        campaign_id: coupon.campaign_id.to_string(),
        user_id: coupon.user_id.to_string(),
        rank: coupon.rank,
        create_time: Some(timestamp(coupon.created_at)),
    }
}

/// Decodes the end of an order; `None` for any other message, and for an order without a coupon.
pub fn decode(message_type: &str, payload: &[u8]) -> Result<Option<EndedOrder>, DecodeError> {
    let (order_id, coupon_id, end) = match messages::name(message_type) {
        Some(proto::OrderFulfilled::NAME) => {
            let fulfilled = proto::OrderFulfilled::decode(payload)?;
            (fulfilled.order_id, fulfilled.coupon_id, OrderEnd::Fulfilled)
        }
        Some(proto::OrderCancelled::NAME) => {
            let cancelled = proto::OrderCancelled::decode(payload)?;
            (cancelled.order_id, cancelled.coupon_id, OrderEnd::Unpaid)
        }
        Some(proto::OrderExpired::NAME) => {
            let expired = proto::OrderExpired::decode(payload)?;
            (expired.order_id, expired.coupon_id, OrderEnd::Unpaid)
        }
        Some(proto::OrderRefunded::NAME) => {
            let refunded = proto::OrderRefunded::decode(payload)?;
            (refunded.order_id, refunded.coupon_id, OrderEnd::Refunded)
        }
        _ => return Ok(None),
    };
    // An order without a coupon does not concern this service.
    let Some(coupon_id) = field::optional_id("coupon_id", &coupon_id)? else { return Ok(None) };
    let order_id = field::id("order_id", &order_id)?;
    Ok(Some(EndedOrder { coupon_id, order_id, end }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Claim, RankedClaim};
    use stampede_vocab::{CampaignId, CouponId, OrderId, RequestId, Service, Timestamp, UserId};
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
    fn issued_coupons_are_published_under_their_campaign() {
        let coupons = vec![claimed(2, 3), claimed(4, 4)];
        let sent =
            encode(&OutgoingMessage::CouponsIssued { campaign_id: campaign(), version: 7, coupons: coupons.clone() });
        assert_eq!((sent.aggregate_id, sent.aggregate_version), (campaign().to_string(), 7));
        let read = proto::CouponsIssued::decode(sent.payload.as_slice()).unwrap().coupons;
        let ids: Vec<_> = read.iter().map(|issued| issued.coupon_id.clone()).collect();
        assert_eq!(ids, [coupons[0].id.to_string(), coupons[1].id.to_string()]);
        let create_time = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
        assert_eq!((read[0].rank, read[0].create_time), (3, Some(create_time)));
    }

    #[test]
    fn the_largest_batch_fits_the_column_that_carries_it() {
        const LARGEST_BLOB: usize = 65_535;
        let coupons = (0..256).map(|n| claimed(u128::MAX - n, i32::MAX)).collect();
        let sent = encode(&OutgoingMessage::CouponsIssued { campaign_id: campaign(), version: i64::MAX, coupons });
        assert!(sent.payload.len() < LARGEST_BLOB, "{} bytes", sent.payload.len());
    }

    #[test]
    fn every_end_of_an_order_is_understood() {
        let (order_id, coupon_id) = (order().to_string(), coupon().to_string());
        let cancelled = proto::OrderCancelled { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let expired = proto::OrderExpired { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let refunded = proto::OrderRefunded { order_id: order_id.clone(), coupon_id: coupon_id.clone() };
        let fulfilled = proto::OrderFulfilled { order_id, coupon_id, ..Default::default() };
        let cases = [
            ("stampede.message.v1.OrderCancelled", cancelled.encode_to_vec(), OrderEnd::Unpaid),
            ("stampede.message.v1.OrderExpired", expired.encode_to_vec(), OrderEnd::Unpaid),
            ("stampede.message.v1.OrderRefunded", refunded.encode_to_vec(), OrderEnd::Refunded),
            ("stampede.message.v1.OrderFulfilled", fulfilled.encode_to_vec(), OrderEnd::Fulfilled),
        ];
        for (message_type, payload, end) in cases {
            let ended = EndedOrder { coupon_id: coupon(), order_id: order(), end };
            assert_eq!(decode(message_type, &payload).unwrap(), Some(ended), "{message_type}");
        }
    }

    #[test]
    fn orders_without_a_coupon_and_other_messages_are_skipped() {
        let plain = proto::OrderExpired { order_id: order().to_string(), coupon_id: String::new() };
        assert_eq!(decode("stampede.message.v1.OrderExpired", &plain.encode_to_vec()).unwrap(), None);
        assert_eq!(decode("stampede.message.v1.OrderPlaced", b"?").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(decode("stampede.message.v1.OrderExpired", b"\xff").is_err());
        let broken = proto::OrderExpired { order_id: order().to_string(), coupon_id: "cpn_1".to_owned() };
        assert!(decode("stampede.message.v1.OrderExpired", &broken.encode_to_vec()).is_err());
    }

    #[test]
    fn every_message_that_the_service_takes_is_understood_and_no_other() {
        let taken: Vec<String> = messages::taken_by(Service::Coupon).collect();
        for message_type in Service::ALL.into_iter().flat_map(messages::written_by) {
            let is_understood = !matches!(decode(&message_type, b"\xff"), Ok(None));
            assert_eq!(is_understood, taken.contains(&message_type), "{message_type}");
        }
    }
}
