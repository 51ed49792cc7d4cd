//! Writing ranked claims: coupons and their messages in one transaction, many at a time. The unique keys have the last
//! word, so a Redis that was rolled back can neither issue a rank twice nor a second coupon to a user.

use crate::{
    domain::{Coupon, Failure, Outgoing, RankedClaim},
    store,
    usecase::{Settler, StagingQueue},
};
use sqlx::MySqlConnection;
use stampede_chassis::backoff;
use stampede_db::{Database, DbError};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::CouponId;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// How often rows of neighbours may get in the way before the batch is given up.
const ATTEMPTS: u32 = 5;

type Coupons = HashMap<CouponId, Coupon>;

/// A ranked claim whose row may be missing.
#[derive(Debug, Clone)]
pub struct Unstored {
    ranked: RankedClaim,
    traceparent: Option<String>,
}

impl Unstored {
    /// A claim that the request at hand was ranked with.
    pub fn caused_here(ranked: RankedClaim) -> Self {
        Self { ranked, traceparent: current_traceparent() }
    }

    fn coupon_id(&self) -> CouponId {
        self.ranked.claim.coupon_id()
    }
}

/// What became of a ranked claim.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The user's coupon: of this claim, or of an earlier one.
    Coupon(Coupon),
    /// The rank is somebody else's, or beyond the quota: what Redis knows of the campaign is wrong.
    RankRefused,
}

/// Stores claims.
#[derive(Clone)]
pub struct StoreClaims {
    db: Database,
    outbox: Outbox,
    settler: Settler,
    staging: StagingQueue,
}

impl StoreClaims {
    /// Stores them in this schema, tells `settler` of those that are done and `staging` of campaigns that are wrong.
    pub fn new(db: Database, outbox: Outbox, settler: Settler, staging: StagingQueue) -> Self {
        Self { db, outbox, settler, staging }
    }

    /// Stores what is not stored yet. One answer for each claim, given after the commit.
    pub async fn store(&self, claims: Vec<Unstored>) -> Result<Vec<Stored>, Failure> {
        let coupons = self.write(distinct(&claims).into()).await?;
        self.outbox.wake();
        let answers = claims.iter().map(|claim| self.answer(&claim.ranked, &coupons)).collect();
        self.settler.settle(claims.into_iter().map(|claim| claim.ranked).collect());
        Ok(answers)
    }

    fn answer(&self, ranked: &RankedClaim, coupons: &Coupons) -> Stored {
        let coupon = coupons.get(&ranked.claim.coupon_id());
        if coupon.is_none_or(|coupon| coupon.rank != ranked.rank) {
            self.staging.distrust(ranked.claim.campaign_id, ranked.epoch);
        }
        coupon.cloned().map_or(Stored::RankRefused, Stored::Coupon)
    }

    /// The coupons that the users of these claims have now.
    async fn write(&self, claims: Arc<[Unstored]>) -> Result<Coupons, DbError> {
        match self.insert_all(claims.clone()).await {
            Err(error) if error.unique_violation().is_some() => self.insert_missing(claims).await,
            outcome => outcome,
        }
    }

    /// The common case: none of them is stored.
    async fn insert_all(&self, claims: Arc<[Unstored]>) -> Result<Coupons, DbError> {
        self.db
            .transact("store_claims", move |connection| {
                let claims = claims.clone();
                Box::pin(async move { issue(connection, &claims.iter().collect::<Vec<_>>()).await })
            })
            .await
    }

    /// Some are stored, or their ranks taken. A row that commits between the look and the insert is seen next time.
    async fn insert_missing(&self, claims: Arc<[Unstored]>) -> Result<Coupons, DbError> {
        let mut attempt = 1;
        loop {
            let batch = claims.clone();
            let outcome = self
                .db
                .transact("store_missing_claims", move |connection| {
                    let batch = batch.clone();
                    Box::pin(async move { issue_missing(connection, &batch).await })
                })
                .await;
            match outcome {
                Err(error) if error.unique_violation().is_some() && attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

async fn issue(connection: &mut MySqlConnection, claims: &[&Unstored]) -> Result<Coupons, DbError> {
    let ranked: Vec<&RankedClaim> = claims.iter().map(|claim| &claim.ranked).collect();
    store::coupons::insert(connection, &ranked).await?;
    let coupons: Vec<Coupon> = ranked.iter().map(|ranked| ranked.coupon()).collect();
    let traceparents = claims.iter().map(|claim| claim.traceparent.clone());
    let told = coupons.iter().map(Outgoing::coupon_issued).zip(traceparents);
    store::outbox::append(connection, told).await?;
    Ok(coupons.into_iter().map(|coupon| (coupon.id, coupon)).collect())
}

async fn issue_missing(connection: &mut MySqlConnection, claims: &[Unstored]) -> Result<Coupons, DbError> {
    let ids: Vec<CouponId> = claims.iter().map(Unstored::coupon_id).collect();
    let mut coupons = store::coupons::find_many(connection, &ids).await?;
    let mut missing: Vec<&Unstored> = claims.iter().filter(|claim| !coupons.contains_key(&claim.coupon_id())).collect();
    let ranked: Vec<&RankedClaim> = missing.iter().map(|claim| &claim.ranked).collect();
    let taken = store::coupons::taken_ranks(connection, &ranked).await?;
    missing.retain(|claim| !taken.contains(&(claim.ranked.claim.campaign_id, claim.ranked.rank)));
    coupons.extend(issue(connection, &missing).await?);
    Ok(coupons)
}

/// Those that one statement can write: within the quota, and no coupon and no rank twice.
fn distinct(claims: &[Unstored]) -> Vec<Unstored> {
    let (mut coupons, mut ranks) = (HashSet::new(), HashSet::new());
    let is_new = |claim: &&Unstored| {
        let ranked = &claim.ranked;
        ranked.is_within_quota()
            && coupons.insert(claim.coupon_id())
            && ranks.insert((ranked.claim.campaign_id, ranked.rank))
    };
    claims.iter().filter(is_new).cloned().collect()
}
