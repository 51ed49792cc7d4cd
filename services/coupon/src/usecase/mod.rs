//! The use cases, one file each. A use case opens the transaction, calls the domain for decisions and the store for
//! SQL; it knows neither SQL nor the contracts.

mod acknowledge_claims;
mod campaigns;
mod claim_coupon;
mod create_campaign;
mod error;
mod find_campaigns;
mod find_coupons;
mod finish_claims;
mod follow_orders;
mod hold_coupons;
mod release_coupon;
mod release_unwritten;
mod stage_campaign;
mod staging_queue;
mod store_claims;
mod working_set;

pub use acknowledge_claims::Acknowledger;
pub use campaigns::Campaigns;
pub use claim_coupon::ClaimCoupon;
pub use create_campaign::CreateCampaign;
pub use error::Error;
pub use find_campaigns::{FindCampaigns, IssuedCampaign};
pub use find_coupons::{CouponList, FindCoupons, FoundCoupon};
pub use finish_claims::FinishClaims;
pub use follow_orders::{follow_free_orders, follow_orders};
pub use hold_coupons::{Held, HoldCoupons};
pub use release_coupon::ReleaseCoupon;
pub use release_unwritten::{HoldCursor, ReleaseUnwritten};
pub use stage_campaign::StageCampaign;
pub use staging_queue::StagingQueue;
pub use store_claims::StoreClaims;

use crate::{
    domain::{Campaign, Coupon},
    store::{campaigns::Stored as StoredCampaign, coupons::Stored as StoredCoupon},
};
use stampede_batch::{BatchConfig, Batcher};
use stampede_db::DbError;
use stampede_service::OnceAMinute;
use stampede_vocab::{CampaignId, CouponId};

/// The lines about campaigns that cannot be read: sweeps meet them in every round.
static CAMPAIGN_LINES: OnceAMinute<CampaignId> = OnceAMinute::new();
/// The lines about coupons that cannot be read: the sweep of holds meets them in every round.
static COUPON_LINES: OnceAMinute<CouponId> = OnceAMinute::new();

/// Most calls of one batch: the limit of one script call and of one statement.
const MAX_BATCH: usize = stampede_lua::coupon::MAX_CLAIMS;

/// Returns the limits of a batcher of this service. Two batches in flight keep Redis or MySQL busy while the next one
/// queues. A queued call is cancelled when its caller goes away, as at its deadline.
const fn batches(name: &'static str) -> BatchConfig {
    BatchConfig { name, max_batch: MAX_BATCH, max_in_flight: 2, max_queued: 32 * MAX_BATCH, must_run: false }
}

/// Returns the same limits for calls that have to run even if their callers are gone.
const fn batches_that_must_run(name: &'static str) -> BatchConfig {
    BatchConfig { must_run: true, ..batches(name) }
}

/// Calls a batcher whose answers are results.
async fn call<Q, A, E>(batcher: &Batcher<Q, Result<A, E>>, argument: Q) -> Result<A, Error>
where
    Q: Send + 'static,
    A: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    Ok(batcher.call(argument).await??)
}

/// Returns the coupon of a row. Logs a row that cannot be read, once a minute, so that lists and sweeps leave it out.
fn readable(stored: StoredCoupon) -> Option<Coupon> {
    stored.coupon.inspect_err(|error| log_unreadable(stored.id, error)).ok()
}

/// Logs why a coupon cannot be read, once a minute.
fn log_unreadable(id: CouponId, error: &DbError) {
    if COUPON_LINES.is_due(id) {
        tracing::error!(coupon.id = %id, error.cause = %error, "coupon cannot be read");
    }
}

/// Returns the campaign of a row. Logs a row that cannot be read, once a minute, so that lists and sweeps leave it out.
fn readable_campaign(stored: StoredCampaign) -> Option<Campaign> {
    let log = |error: &DbError| {
        if CAMPAIGN_LINES.is_due(stored.id) {
            tracing::error!(campaign.id = %stored.id, error.cause = %error, "campaign cannot be read");
        }
    };
    stored.campaign.inspect_err(log).ok()
}

/// Returns the outcome of a batch as one answer for each of its calls.
fn each<A, E: Clone>(outcome: Result<Vec<A>, E>, calls: usize) -> Vec<Result<A, E>> {
    match outcome {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) => (0..calls).map(|_| Err(error.clone())).collect(),
    }
}
