//! What the service tells the others.

use crate::domain::Coupon;
use stampede_vocab::CampaignId;

/// A fact to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// Coupons of one campaign were issued.
    CouponsIssued {
        /// Campaign that they are of.
        campaign_id: CampaignId,
        /// Counts the messages of the campaign, from 1.
        version: i64,
        coupons: Vec<Coupon>,
    },
}
