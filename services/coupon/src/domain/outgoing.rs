//! What the service tells the others.

use crate::domain::Coupon;
use stampede_vocab::{CampaignId, CouponId, Timestamp, UserId};

/// A fact to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A coupon was issued.
    CouponIssued {
        /// Coupon.
        coupon_id: CouponId,
        /// Campaign that it is of.
        campaign_id: CampaignId,
        /// Owner.
        user_id: UserId,
        /// Order of arrival in the campaign.
        rank: i32,
        /// When the claim was ranked.
        issued_at: Timestamp,
    },
}

impl Outgoing {
    /// Tells that this coupon was issued.
    pub fn coupon_issued(coupon: &Coupon) -> Self {
        Self::CouponIssued {
            coupon_id: coupon.id,
            campaign_id: coupon.campaign_id,
            user_id: coupon.user_id,
            rank: coupon.rank,
            issued_at: coupon.created_at,
        }
    }
}
