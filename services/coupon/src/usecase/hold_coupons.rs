//! HoldCoupons: sets coupons aside for orders, a batch in one transaction. Holds of several calls share it.

use crate::{
    domain::{Campaign, Coupon, Failure, HoldError, HoldRequest},
    store,
    usecase::{Campaigns, ask, batches, campaigns::CampaignsById, changed, each},
};
use futures_util::future::try_join_all;
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::{CouponId, SharedClock, Timestamp};
use std::{collections::HashMap, sync::Arc};

/// A held coupon and its campaign, or why it is not held.
pub type Held = Result<(Coupon, Arc<Campaign>), HoldError>;

/// Holds coupons. Clones share the batches.
#[derive(Clone)]
pub struct HoldCoupons {
    holder: Batcher<HoldRequest, Result<Held, Failure>>,
}

impl HoldCoupons {
    /// Holds them in this schema.
    pub fn new(db: Database, clock: SharedClock, campaigns: Campaigns) -> Self {
        let holder = Batcher::new(batches("hold_coupons"), move |requests: Vec<HoldRequest>| {
            let (db, campaigns, now) = (db.clone(), campaigns.clone(), clock.now());
            async move {
                let asked = requests.len();
                each(hold_all(&db, campaigns, requests, now).await.map_err(Failure::from), asked)
            }
        });
        Self { holder }
    }

    /// Sets coupons aside for orders, each on its own; the answers come in the order given. After a failure some may be
    /// held all the same: asking again renews those holds, and what nobody asks for again is returned as an orphan.
    pub async fn hold(&self, requests: Vec<HoldRequest>) -> Result<Vec<Held>, Failure> {
        try_join_all(requests.into_iter().map(|request| ask(&self.holder, request))).await
    }
}

async fn hold_all(
    db: &Database,
    campaigns: Campaigns,
    requests: Vec<HoldRequest>,
    now: Timestamp,
) -> Result<Vec<Held>, DbError> {
    let requests: Arc<[HoldRequest]> = requests.into();
    db.transact("hold_coupons", move |connection| {
        let (requests, campaigns) = (requests.clone(), campaigns.clone());
        Box::pin(async move { hold_on(connection, &campaigns, &requests, now).await })
    })
    .await
}

async fn hold_on(
    connection: &mut MySqlConnection,
    campaigns: &Campaigns,
    requests: &[HoldRequest],
    now: Timestamp,
) -> Result<Vec<Held>, DbError> {
    let mut ids: Vec<CouponId> = requests.iter().map(|request| request.coupon_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut coupons = store::coupons::lock_many(connection, &ids).await?;
    let campaigns = campaigns.get_on(connection, coupons.values().map(|coupon| coupon.campaign_id)).await?;
    let before = coupons.clone();
    let answers =
        requests.iter().map(|request| decide(&mut coupons, &campaigns, request, now)).collect::<Result<_, _>>()?;
    store::coupons::write_states(connection, &changed(&before, coupons), now).await?;
    Ok(answers)
}

/// Decides one request on what the requests before it have left.
fn decide(
    coupons: &mut HashMap<CouponId, Coupon>,
    campaigns: &CampaignsById,
    request: &HoldRequest,
    now: Timestamp,
) -> Result<Held, DbError> {
    let Some(coupon) = coupons.get_mut(&request.coupon_id) else { return Ok(Err(HoldError::NotFound)) };
    let campaign = campaigns.get(&coupon.campaign_id);
    let missing = || DbError::inconsistent(format!("coupon {} is of no campaign", request.coupon_id));
    let campaign = campaign.ok_or_else(missing)?;
    let held = coupon.clone().hold(request, &campaign.terms, now);
    Ok(held.map(|held| {
        *coupon = held.clone();
        (held, campaign.clone())
    }))
}
