//! A claim, before and after it has its rank. A ranked claim is an issued coupon whose row may still be missing.

use crate::domain::{Coupon, CouponState};
use stampede_vocab::{CampaignId, CouponId, RequestId, Timestamp, UserId};

/// One user's first-come request for a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub campaign_id: CampaignId,
    pub user_id: UserId,
    pub request_id: RequestId,
}

impl Claim {
    /// Returns the id of the coupon that this claim yields if it is ranked.
    pub fn coupon_id(&self) -> CouponId {
        CouponId::derive(self.campaign_id, self.user_id)
    }
}

/// A claim that was given its rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankedClaim {
    /// The first ranked claim of the user.
    pub claim: Claim,
    /// Order of arrival in the campaign: 1 is the first.
    pub rank: i32,
    pub quota: i32,
    pub claimed_at: Timestamp,
    /// Epoch of the staged campaign that gave the rank: the one to invalidate if the rank is refused.
    pub epoch: i64,
}

impl RankedClaim {
    /// Returns whether the rank is within the quota.
    pub fn is_within_quota(&self) -> bool {
        (1..=self.quota).contains(&self.rank)
    }

    /// Returns the coupon issued by this claim.
    pub fn coupon(&self) -> Coupon {
        Coupon {
            id: self.claim.coupon_id(),
            campaign_id: self.claim.campaign_id,
            user_id: self.claim.user_id,
            rank: self.rank,
            state: CouponState::Issued,
            request_id: self.claim.request_id.clone(),
            created_at: self.claimed_at,
            updated_at: self.claimed_at,
        }
    }
}
