//! Campaigns, claims and coupons, and the transitions of a coupon. No async and no I/O.

mod campaign;
mod claim;
mod coupon;
mod error;
mod outgoing;

pub use campaign::{Campaign, CampaignTerms};
pub use claim::{Claim, RankedClaim};
pub use coupon::{Coupon, CouponState, EndedOrder, HoldRequest, OrderEnd};
pub use error::{ClaimRefusal, CreateRefusal, HoldRefusal};
pub use outgoing::OutgoingMessage;
