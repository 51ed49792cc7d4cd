//! The messages that the service publishes.

use crate::domain::Coupon;
use stampede_vocab::CampaignId;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// Coupons of one campaign were issued.
    CouponsIssued {
        campaign_id: CampaignId,
        /// Sequence number of the message in its campaign, from 1.
        version: i64,
        coupons: Vec<Coupon>,
    },
}
