//! HoldCoupons: holds coupons for orders. The holds of one call are one transaction.

use crate::{
    domain::{Campaign, Coupon, HoldRefusal, HoldRequest},
    usecase::{
        Campaigns, Error,
        campaigns::{CampaignsById, campaign_of},
        log_unreadable,
        working_set::WorkingSet,
    },
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, Statements};
use stampede_vocab::Timestamp;
use std::sync::Arc;

/// A held coupon and its campaign, or why it is not held.
pub type Held = Result<(Coupon, Arc<Campaign>), HoldRefusal>;

/// Holds coupons. Cheap to clone.
#[derive(Clone)]
pub struct HoldCoupons {
    db: Database,
    campaigns: Campaigns,
}

impl HoldCoupons {
    /// Returns the use case on this schema.
    pub fn new(db: Database, campaigns: Campaigns) -> Self {
        Self { db, campaigns }
    }

    /// Decides each hold on its own. Returns the answers in the order given, with an error for a coupon that cannot be
    /// read, or whose campaign cannot be. If the call fails it holds none. A retry is safe; without one the sweep
    /// returns the coupon.
    pub async fn run(&self, requests: Vec<HoldRequest>) -> Result<Vec<Result<Held, DbError>>, Error> {
        let (requests, campaigns): (Arc<[HoldRequest]>, _) = (requests.into(), self.campaigns.clone());
        let now = Timestamp::now();
        let mut opening = Statements::new();
        let ids = requests.iter().map(|request| request.coupon_id).collect();
        let place = WorkingSet::push_lock(&mut opening, ids);
        // The lock goes out with the BEGIN, to save a round trip for the waiting buyer.
        let work = self.db.transact_after("hold_coupons", opening, move |conn, read| {
            let (requests, campaigns) = (requests.clone(), campaigns.clone());
            Box::pin(async move {
                let coupons = WorkingSet::read(&read, place)?;
                hold_on(conn, coupons, &campaigns, &requests, now).await
            })
        });
        let answers: Result<Vec<_>, DbError> = work.await;
        Ok(answers?)
    }
}

async fn hold_on(
    conn: &mut MySqlConnection,
    mut coupons: WorkingSet,
    campaigns: &Campaigns,
    requests: &[HoldRequest],
    now: Timestamp,
) -> Result<Vec<Result<Held, DbError>>, DbError> {
    let campaigns = campaigns.get_on(conn, coupons.campaign_ids()).await?;
    let answers = requests.iter().map(|request| decide(&mut coupons, &campaigns, request, now)).collect();
    coupons.save(conn, now).await?;
    Ok(answers)
}

/// Decides one request on the states after the requests before it.
fn decide(
    coupons: &mut WorkingSet,
    campaigns: &CampaignsById,
    request: &HoldRequest,
    now: Timestamp,
) -> Result<Held, DbError> {
    if let Some(error) = coupons.error(request.coupon_id) {
        log_unreadable(request.coupon_id, error);
        return Err(error.clone());
    }
    let Some(coupon) = coupons.get(request.coupon_id) else { return Ok(Err(HoldRefusal::NotFound)) };
    let campaign = campaign_of(campaigns, coupon).inspect_err(|error| log_unreadable(coupon.id, error))?;
    let held = match coupon.hold(request, &campaign.terms, now) {
        Ok(Some(held)) => held,
        Ok(None) => return Ok(Ok((coupon.clone(), campaign))),
        Err(refusal) => return Ok(Err(refusal)),
    };
    coupons.put(held.clone());
    Ok(Ok((held, campaign)))
}
