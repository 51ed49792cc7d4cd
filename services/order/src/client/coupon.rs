//! Holds of coupons.

use super::{PeerError, inventory::money, persistently};
use crate::domain::{CouponRefusal, Draft, PlaceRefusal};
use stampede_chassis::MeshChannel;
use stampede_proto::coupon::v1::{self as coupon, coupon_service_client::CouponServiceClient};
use stampede_status::{Problem, Reason};
use stampede_vocab::{CouponId, Currency, Money};
use tonic::Status;

const PEER: &str = "coupon";

type Client = CouponServiceClient<MeshChannel>;

/// The coupon service. Cheap to clone.
#[derive(Clone)]
pub struct Coupons {
    client: Client,
}

impl Coupons {
    /// Speaks through this channel.
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: Client::new(channel) }
    }

    /// Sets a coupon aside for the order and tells what it takes off. A repeat gets the same. Fails if the service
    /// could not be asked; whether the coupon is held is not known then.
    pub async fn hold(
        &self,
        id: CouponId,
        draft: &Draft,
        currency: Currency,
    ) -> Result<Result<Money, PlaceRefusal>, PeerError> {
        let request = coupon::HoldCouponRequest {
            coupon_id: id.to_string(),
            order_id: draft.order.to_string(),
            user_id: draft.buyer.to_string(),
            event_id: draft.event.to_string(),
            currency: currency.as_str().to_owned(),
            request_fingerprint: draft.fingerprint().as_bytes().to_vec(),
        };
        let call = || {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.hold_coupon(request).await }
        };
        match persistently(call).await {
            Ok(response) => discount(response.into_inner()).map(Ok),
            Err(status) => refusal(&status).map(Err).ok_or(PeerError::Failed { peer: PEER, status }),
        }
    }

    /// Returns a coupon that is held for this request. Changes nothing if it is not.
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
        persistently(call).await.map_err(|status| PeerError::Failed { peer: PEER, status })?;
        Ok(())
    }
}

fn discount(response: coupon::HoldCouponResponse) -> Result<Money, PeerError> {
    let discount = response.coupon.and_then(|coupon| coupon.discount);
    discount.as_ref().and_then(money).ok_or_else(|| PeerError::senseless(PEER, "a coupon without a discount"))
}

/// The refusal that is the buyer's to know; `None` for any other failure.
fn refusal(status: &Status) -> Option<PlaceRefusal> {
    match Problem::from_status(status).reason() {
        Reason::CouponNotFound => Some(PlaceRefusal::Coupon(CouponRefusal::NotFound)),
        Reason::CouponInUse => Some(PlaceRefusal::Coupon(CouponRefusal::InUse)),
        Reason::CouponWrongEvent => Some(PlaceRefusal::Coupon(CouponRefusal::WrongEvent)),
        Reason::CurrencyMismatch => Some(PlaceRefusal::Coupon(CouponRefusal::CurrencyMismatch)),
        Reason::RequestIdReused => Some(PlaceRefusal::RequestIdReused),
        _ => None,
    }
}
