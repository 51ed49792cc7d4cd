//! The refusals of the use cases. A refusal changes nothing.

use crate::domain::CouponState;
use stampede_vocab::{CouponId, Currency, InvalidField};

/// Why a campaign was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateRefusal {
    /// A field has a value that is not allowed.
    #[error(transparent)]
    InvalidField(#[from] InvalidField),
    /// The request id created another campaign before.
    #[error("the request_id created a campaign with other terms")]
    RequestIdReused,
}

/// Why a claim yields no coupon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    #[error("there is no such campaign")]
    CampaignNotFound,
    #[error("claims have not opened yet")]
    NotOpen,
    #[error("claims have closed")]
    Closed,
    #[error("every coupon is issued")]
    SoldOut,
    /// The user has a coupon of this campaign by another request.
    #[error("a coupon of this campaign was issued to you already")]
    AlreadyClaimed { coupon_id: CouponId },
    #[error("the campaign is being staged")]
    NotReady,
}

/// Why a coupon is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldRefusal {
    /// There is no such coupon, or it is another user's.
    #[error("there is no such coupon")]
    NotFound,
    /// Another order holds or used it.
    #[error("the coupon is in use by another order")]
    InUse { state: CouponState },
    /// The order holds it for another request.
    #[error("the coupon is held for another request of the same id")]
    RequestIdReused,
    /// It is valid in another event only.
    #[error("the coupon does not count in this event")]
    WrongEvent,
    /// Its discount is in another currency.
    #[error("the coupon is in {coupon}")]
    CurrencyMismatch {
        /// Currency of the discount.
        coupon: Currency,
    },
}
