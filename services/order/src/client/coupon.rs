//! Holds coupons. Calls that queue while a batch is in flight go out as one.

use super::{BatchingClient, MAX_ATTEMPTS, PeerError, TIMEOUT};
use crate::domain::{CouponRefusal, Draft, PlaceRefusal};
use stampede_batch::BatchConfig;
use stampede_chassis::{MeshChannel, retry_unavailable};
use stampede_proto::{
    convert::stored_money,
    coupon::v1::{
        self as coupon, HoldCouponRefusalReason, coupon_service_client::CouponServiceClient,
        hold_coupon_result::Outcome,
    },
};
use stampede_vocab::{CouponId, Currency, Money, Service};
use tonic::Status;

const PEER: Service = Service::Coupon;

const HOLD: BatchConfig =
    BatchConfig { name: "hold_coupons", max_batch: 256, max_in_flight: 2, max_queued: 8_192, must_run: false };

type Client = CouponServiceClient<MeshChannel>;

/// The coupon service. Cheap to clone.
#[derive(Clone)]
pub struct Coupons {
    client: Client,
    hold: BatchingClient<coupon::CouponHold, coupon::HoldCouponResult>,
}

impl Coupons {
    pub fn new(channel: MeshChannel) -> Self {
        let client = Client::new(channel);
        let batch_client = client.clone();
        let hold = BatchingClient::new(PEER, HOLD, move |holds| hold_all(batch_client.clone(), holds));
        Self { client, hold }
    }

    /// Holds a coupon for the order and returns its discount. Idempotent. After an error the hold may or may not exist.
    pub async fn hold(
        &self,
        id: CouponId,
        draft: &Draft,
        currency: Currency,
    ) -> Result<Result<Money, PlaceRefusal>, PeerError> {
        let hold = coupon::CouponHold {
            coupon_id: id.to_string(),
            order_id: draft.order.to_string(),
            user_id: draft.buyer.to_string(),
            event_id: draft.event.to_string(),
            currency: currency.as_str().to_owned(),
            request_fingerprint: draft.fingerprint().as_bytes().to_vec(),
        };
        outcome(self.hold.call(hold).await?)
    }

    /// Releases the hold of this request on a coupon. Does nothing if there is none.
    pub async fn release(&self, id: CouponId, draft: &Draft) -> Result<(), PeerError> {
        let request = coupon::ReleaseCouponRequest {
            coupon_id: id.to_string(),
            order_id: draft.order.to_string(),
            request_fingerprint: draft.fingerprint().as_bytes().to_vec(),
        };
        let call = || {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.release_coupon(request).await }
        };
        let outcome = retry_unavailable(MAX_ATTEMPTS, TIMEOUT, call).await;
        outcome.map(drop).map_err(|status| PeerError::Failed { peer: PEER, status })
    }
}

async fn hold_all(mut client: Client, holds: Vec<coupon::CouponHold>) -> Result<Vec<coupon::HoldCouponResult>, Status> {
    Ok(client.hold_coupons(coupon::HoldCouponsRequest { holds }).await?.into_inner().results)
}

fn outcome(result: coupon::HoldCouponResult) -> Result<Result<Money, PlaceRefusal>, PeerError> {
    match result.outcome {
        Some(Outcome::Coupon(held)) => discount(&held).map(Ok),
        Some(Outcome::Refusal(refusal)) => self::refusal(refusal.reason()).map(Err),
        None => Err(PeerError::invalid(PEER, "a result without an outcome")),
    }
}

fn discount(held: &coupon::Coupon) -> Result<Money, PeerError> {
    stored_money("discount", held.discount.as_ref()).map_err(|error| PeerError::invalid(PEER, error))
}

fn refusal(reason: HoldCouponRefusalReason) -> Result<PlaceRefusal, PeerError> {
    let refusal = match reason {
        HoldCouponRefusalReason::Unspecified => {
            return Err(PeerError::invalid(PEER, "a refusal without a reason"));
        }
        HoldCouponRefusalReason::RequestIdReused => return Ok(PlaceRefusal::RequestIdReused),
        HoldCouponRefusalReason::CouponNotFound => CouponRefusal::NotFound,
        HoldCouponRefusalReason::CouponInUse => CouponRefusal::InUse,
        HoldCouponRefusalReason::CouponWrongEvent => CouponRefusal::WrongEvent,
        HoldCouponRefusalReason::CurrencyMismatch => CouponRefusal::CurrencyMismatch,
    };
    Ok(PlaceRefusal::Coupon(refusal))
}
