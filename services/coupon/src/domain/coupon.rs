//! A coupon and its transitions: ISSUED to HELD by an order, HELD to USED when the order is fulfilled, and back to
//! ISSUED when the order is cancelled, expires or is refunded.

use crate::domain::{CampaignTerms, HoldRefusal};
use stampede_vocab::{CampaignId, CouponId, Currency, EventId, Fingerprint, OrderId, RequestId, Timestamp, UserId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CouponState {
    /// Its owner may use it.
    Issued,
    /// Held for an order that is not paid yet.
    Held {
        order_id: OrderId,
        /// Fingerprint of the request that it is held for.
        request: Fingerprint,
    },
    /// Used by a paid order.
    Used { order_id: OrderId },
}

impl CouponState {
    /// Returns the order that holds or used it.
    pub fn order_id(self) -> Option<OrderId> {
        match self {
            Self::Issued => None,
            Self::Held { order_id, .. } | Self::Used { order_id } => Some(order_id),
        }
    }

    /// Returns the fingerprint of the request that it is held for.
    pub fn held_request(self) -> Option<Fingerprint> {
        match self {
            Self::Held { request, .. } => Some(request),
            Self::Issued | Self::Used { .. } => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// Derived from the campaign and the user.
    pub id: CouponId,
    pub campaign_id: CampaignId,
    /// Owner.
    pub user_id: UserId,
    /// Order of arrival in the campaign: 1 is the first.
    pub rank: i32,
    pub state: CouponState,
    /// Request of the claim.
    pub request_id: RequestId,
    /// When the claim was ranked.
    pub created_at: Timestamp,
    /// When the state last changed, or the hold was last requested.
    pub updated_at: Timestamp,
}

/// A request to hold a coupon for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    pub coupon_id: CouponId,
    pub order_id: OrderId,
    /// Fingerprint of the request for the order.
    pub request: Fingerprint,
    /// Buyer of the order.
    pub user_id: UserId,
    /// Event of the order.
    pub event_id: EventId,
    /// Currency of the order.
    pub currency: Currency,
}

/// How an order ended, as far as its coupon is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderEnd {
    /// Paid, and its goods granted.
    Fulfilled,
    /// Cancelled or expired, so never fulfilled, unless this is a repeat of an earlier end.
    Unpaid,
    /// Refunded: its coupon is returned for good.
    Refunded,
    /// The order service refused this request for it.
    Released {
        /// Fingerprint of the request: a hold for another one stays.
        request: Fingerprint,
    },
    /// The order service does not know it, queried after `requested_before`: a hold not requested since is undone.
    NeverWritten {
        /// Holds requested later than this are kept: their order may still be written.
        requested_before: Timestamp,
    },
}

/// An order that had a coupon has come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedOrder {
    pub coupon_id: CouponId,
    pub order_id: OrderId,
    pub end: OrderEnd,
}

/// A fulfilled order named a coupon that another order holds or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("order {order_id} was fulfilled with a coupon that is {state:?}")]
pub struct UsedElsewhere {
    /// The fulfilled order.
    pub order_id: OrderId,
    pub state: CouponState,
}

impl Coupon {
    /// Sets the coupon aside for an order; `None` if that changes nothing, as when the order has used it.
    ///
    /// A repeat of the same request renews the hold, so that no sweep undoes it while the order is retried. Another
    /// request for the same order is refused.
    pub fn hold(
        &self,
        request: &HoldRequest,
        terms: &CampaignTerms,
        now: Timestamp,
    ) -> Result<Option<Self>, HoldRefusal> {
        if self.user_id != request.user_id {
            return Err(HoldRefusal::NotFound);
        }
        if terms.event_id.is_some_and(|event_id| event_id != request.event_id) {
            return Err(HoldRefusal::WrongEvent);
        }
        if terms.discount.currency != request.currency {
            return Err(HoldRefusal::CurrencyMismatch { coupon: terms.discount.currency });
        }
        let (order_id, state) = (request.order_id, self.state);
        let held = CouponState::Held { order_id, request: request.request };
        match state {
            CouponState::Issued => Ok(Some(self.with_state(held, now))),
            CouponState::Held { .. } if state == held => Ok(Some(self.with_state(held, now))),
            CouponState::Held { order_id: holder, .. } if holder == order_id => Err(HoldRefusal::RequestIdReused),
            CouponState::Used { order_id: user } if user == order_id => Ok(None),
            CouponState::Held { .. } | CouponState::Used { .. } => Err(HoldRefusal::InUse { state }),
        }
    }

    /// Returns the coupon after the end of an order; `None` if that changes nothing, as for a repeat.
    ///
    /// An order that was fulfilled used its coupon even if the coupon had been returned meanwhile (paid after expiry).
    /// The caller must check that it was not refunded since.
    pub fn follow(&self, order_id: OrderId, end: OrderEnd, now: Timestamp) -> Result<Option<Self>, UsedElsewhere> {
        let state = self.state;
        let is_of_order = state.order_id() == Some(order_id);
        let next = match (end, state) {
            (OrderEnd::Fulfilled, CouponState::Used { .. }) if is_of_order => None,
            (OrderEnd::Fulfilled, CouponState::Issued) => Some(CouponState::Used { order_id }),
            (OrderEnd::Fulfilled, CouponState::Held { .. }) if is_of_order => Some(CouponState::Used { order_id }),
            (OrderEnd::Fulfilled, _) => return Err(UsedElsewhere { order_id, state }),
            (OrderEnd::Unpaid, CouponState::Held { .. }) if is_of_order => Some(CouponState::Issued),
            (OrderEnd::Refunded, _) if is_of_order => Some(CouponState::Issued),
            (OrderEnd::Released { request }, CouponState::Held { request: holder, .. })
                if is_of_order && request == holder =>
            {
                Some(CouponState::Issued)
            }
            (OrderEnd::NeverWritten { requested_before }, CouponState::Held { .. })
                if is_of_order && self.updated_at <= requested_before =>
            {
                Some(CouponState::Issued)
            }
            (OrderEnd::Unpaid | OrderEnd::Refunded | OrderEnd::Released { .. } | OrderEnd::NeverWritten { .. }, _) => {
                None
            }
        };
        Ok(next.map(|state| self.with_state(state, now)))
    }

    fn with_state(&self, state: CouponState, now: Timestamp) -> Self {
        Self { state, updated_at: now, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Money;
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_micros(1_000);

    fn order(n: u128) -> OrderId {
        OrderId::from_uuid(Uuid::from_u128(n))
    }

    fn event(n: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(n))
    }

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn coupon(state: CouponState) -> Coupon {
        let campaign_id = CampaignId::from_uuid(Uuid::from_u128(1));
        Coupon {
            id: CouponId::derive(campaign_id, user(1)),
            campaign_id,
            user_id: user(1),
            rank: 7,
            state,
            request_id: RequestId::parse("claim").unwrap(),
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(1),
        }
    }

    const REQUEST: Fingerprint = Fingerprint::new([1; 32]);
    const OTHER_REQUEST: Fingerprint = Fingerprint::new([2; 32]);

    fn held_by(n: u128) -> Coupon {
        coupon(CouponState::Held { order_id: order(n), request: REQUEST })
    }

    fn used_by(n: u128) -> Coupon {
        coupon(CouponState::Used { order_id: order(n) })
    }

    fn terms() -> CampaignTerms {
        CampaignTerms {
            name: "any".to_owned(),
            quota: 10,
            discount: Money::new(500, "EUR".parse().unwrap()),
            event_id: Some(event(1)),
            open_time: Timestamp::from_micros(0),
            close_time: Timestamp::from_micros(10),
        }
    }

    fn hold_request() -> HoldRequest {
        HoldRequest {
            coupon_id: coupon(CouponState::Issued).id,
            order_id: order(1),
            request: REQUEST,
            user_id: user(1),
            event_id: event(1),
            currency: "EUR".parse().unwrap(),
        }
    }

    fn state_after(coupon: &Coupon, end: OrderEnd) -> Option<CouponState> {
        coupon.follow(order(1), end, NOW).unwrap().map(|coupon| coupon.state)
    }

    #[test]
    fn an_issued_coupon_is_held_for_the_order_that_asks() {
        let held = coupon(CouponState::Issued).hold(&hold_request(), &terms(), NOW).unwrap().unwrap();
        assert_eq!(held.state, CouponState::Held { order_id: order(1), request: REQUEST });
        assert_eq!(held.updated_at, NOW);
    }

    #[test]
    fn asking_again_for_the_same_order_keeps_and_renews_the_hold() {
        let again = held_by(1).hold(&hold_request(), &terms(), NOW).unwrap().unwrap();
        assert_eq!((again.state, again.updated_at), (held_by(1).state, NOW));
        assert_eq!(used_by(1).hold(&hold_request(), &terms(), NOW), Ok(None));
    }

    #[test]
    fn another_request_for_the_same_order_neither_gets_nor_returns_the_hold() {
        let other = HoldRequest { request: OTHER_REQUEST, ..hold_request() };
        assert_eq!(held_by(1).hold(&other, &terms(), NOW), Err(HoldRefusal::RequestIdReused));
        assert_eq!(state_after(&held_by(1), OrderEnd::Released { request: OTHER_REQUEST }), None);
    }

    #[test]
    fn a_coupon_of_another_order_is_in_use() {
        for taken in [held_by(2), used_by(2)] {
            let state = taken.state;
            assert_eq!(taken.hold(&hold_request(), &terms(), NOW), Err(HoldRefusal::InUse { state }));
        }
    }

    #[test]
    fn the_wrong_owner_event_or_currency_is_refused() {
        let issued = coupon(CouponState::Issued);
        let foreign = HoldRequest { user_id: user(2), ..hold_request() };
        assert_eq!(issued.hold(&foreign, &terms(), NOW), Err(HoldRefusal::NotFound));
        let elsewhere = HoldRequest { event_id: event(2), ..hold_request() };
        assert_eq!(issued.hold(&elsewhere, &terms(), NOW), Err(HoldRefusal::WrongEvent));
        assert!(issued.hold(&elsewhere, &CampaignTerms { event_id: None, ..terms() }, NOW).is_ok());
        let dollars = HoldRequest { currency: "USD".parse().unwrap(), ..hold_request() };
        let refused = Err(HoldRefusal::CurrencyMismatch { coupon: "EUR".parse().unwrap() });
        assert_eq!(issued.hold(&dollars, &terms(), NOW), refused);
    }

    #[test]
    fn a_fulfilled_order_uses_its_coupon_once() {
        let used = Some(used_by(1).state);
        assert_eq!(state_after(&held_by(1), OrderEnd::Fulfilled), used);
        assert_eq!(state_after(&coupon(CouponState::Issued), OrderEnd::Fulfilled), used);
        assert_eq!(state_after(&used_by(1), OrderEnd::Fulfilled), None);
    }

    #[test]
    fn a_fulfilled_order_never_takes_the_coupon_of_another() {
        for taken in [held_by(2), used_by(2)] {
            let error = UsedElsewhere { order_id: order(1), state: taken.state };
            assert_eq!(taken.follow(order(1), OrderEnd::Fulfilled, NOW), Err(error));
        }
    }

    #[test]
    fn an_unpaid_order_returns_what_it_holds_and_a_refunded_one_what_it_has_used() {
        let issued = Some(CouponState::Issued);
        assert_eq!(state_after(&held_by(1), OrderEnd::Unpaid), issued);
        for own in [held_by(1), used_by(1)] {
            assert_eq!(state_after(&own, OrderEnd::Refunded), issued);
        }
        for other in [coupon(CouponState::Issued), held_by(2), used_by(2)] {
            assert_eq!(state_after(&other, OrderEnd::Unpaid), None);
            assert_eq!(state_after(&other, OrderEnd::Refunded), None);
        }
        assert_eq!(state_after(&used_by(1), OrderEnd::Unpaid), None, "a repeat: it was paid after that");
    }

    #[test]
    fn a_release_returns_a_hold_and_never_a_used_coupon() {
        let released = OrderEnd::Released { request: REQUEST };
        assert_eq!(state_after(&held_by(1), released), Some(CouponState::Issued));
        for other in [coupon(CouponState::Issued), held_by(2), used_by(1)] {
            assert_eq!(state_after(&other, released), None);
        }
    }

    #[test]
    fn a_hold_renewed_after_the_orders_were_queried_is_kept() {
        let never_written = OrderEnd::NeverWritten { requested_before: Timestamp::from_micros(1) };
        assert_eq!(state_after(&held_by(1), never_written), Some(CouponState::Issued));
        let renewed = Coupon { updated_at: Timestamp::from_micros(2), ..held_by(1) };
        assert_eq!(state_after(&renewed, never_written), None);
        assert_eq!(state_after(&used_by(1), never_written), None);
    }
}
