//! Writing ranked claims: coupons and what tells of them in one transaction, many at a time. The unique keys have the
//! last word, so a Redis that was rolled back can neither issue a rank twice nor a second coupon to a user.

use crate::{
    domain::{Coupon, OutgoingMessage, RankedClaim},
    store::{self, coupons::RankOwners},
    usecase::{Acknowledger, StagingQueue},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::{CampaignId, CouponId, backoff};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
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

#[derive(Clone)]
pub struct StoreClaims {
    db: Database,
    outbox: Outbox,
    acknowledger: Acknowledger,
    staging: StagingQueue,
}

impl StoreClaims {
    /// Stores them in this schema, tells `acknowledger` of those that are done and `staging` of campaigns that are
    /// wrong.
    pub fn new(db: Database, outbox: Outbox, acknowledger: Acknowledger, staging: StagingQueue) -> Self {
        Self { db, outbox, acknowledger, staging }
    }

    /// Stores what is not stored yet. One answer for each claim, given after the commit.
    pub async fn store(&self, claims: Vec<Unstored>) -> Result<Vec<Stored>, DbError> {
        let coupons = self.write(distinct(&claims).into()).await?;
        self.outbox.wake();
        let answers = claims.iter().map(|claim| self.answer(&claim.ranked, &coupons)).collect();
        self.acknowledger.acknowledge(claims.into_iter().map(|claim| claim.ranked).collect());
        Ok(answers)
    }

    fn answer(&self, ranked: &RankedClaim, coupons: &Coupons) -> Stored {
        let coupon = coupons.get(&ranked.claim.coupon_id());
        if coupon.is_none_or(|coupon| coupon.rank != ranked.rank) {
            self.staging.invalidate(ranked.claim.campaign_id, ranked.epoch);
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
            .transact("store_claims", move |conn| {
                let claims = claims.clone();
                Box::pin(async move { issue(conn, &claims.iter().collect::<Vec<_>>()).await })
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
                .transact("store_missing_claims", move |conn| {
                    let batch = batch.clone();
                    Box::pin(async move { issue_missing(conn, &batch).await })
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

async fn issue(conn: &mut MySqlConnection, claims: &[&Unstored]) -> Result<Coupons, DbError> {
    let ranked: Vec<&RankedClaim> = claims.iter().map(|claim| &claim.ranked).collect();
    store::coupons::insert(conn, &ranked).await?;
    tell(conn, claims).await?;
    let coupons = ranked.iter().map(|ranked| ranked.coupon());
    Ok(coupons.map(|coupon| (coupon.id, coupon)).collect())
}

/// One message a campaign, in the trace of its first claim. The rows of the campaigns are locked last, and so for no
/// longer than the commit takes.
async fn tell(conn: &mut MySqlConnection, claims: &[&Unstored]) -> Result<(), DbError> {
    if claims.is_empty() {
        return Ok(());
    }
    let mut batches = BTreeMap::<CampaignId, (Vec<Coupon>, Option<String>)>::new();
    for claim in claims {
        let batch = batches.entry(claim.ranked.claim.campaign_id);
        let (coupons, _) = batch.or_insert_with(|| (Vec::new(), claim.traceparent.clone()));
        coupons.push(claim.ranked.coupon());
    }
    let versions = store::campaigns::next_versions(conn, &batches.keys().copied().collect()).await?;
    let mut messages = Vec::with_capacity(batches.len());
    for (campaign_id, (coupons, traceparent)) in batches {
        let version = *versions
            .get(&campaign_id)
            .ok_or_else(|| DbError::inconsistent(format!("{campaign_id} has claims, but no row")))?;
        messages.push((OutgoingMessage::CouponsIssued { campaign_id, version, coupons }, traceparent));
    }
    store::outbox::append(conn, messages).await
}

/// The ranks are read first, and with them whose they are: a neighbour may store the same claims between the two reads,
/// and what the first one saw the second one sees too. Read the other way round, the rank of a claim that was stored in
/// between would look like somebody else's.
async fn issue_missing(conn: &mut MySqlConnection, claims: &[Unstored]) -> Result<Coupons, DbError> {
    let ranked: Vec<&RankedClaim> = claims.iter().map(|claim| &claim.ranked).collect();
    let owners = store::coupons::owners_of_ranks(conn, &ranked).await?;
    let ids: Vec<CouponId> = claims.iter().map(Unstored::coupon_id).collect();
    let mut coupons = store::coupons::find_many(conn, &ids).await?;
    let missing = claims.iter().filter(|claim| is_missing(claim, &coupons, &owners)).collect::<Vec<_>>();
    coupons.extend(issue(conn, &missing).await?);
    Ok(coupons)
}

/// Whether the claim can still be stored: its user has no coupon, and nobody else has its rank.
fn is_missing(claim: &Unstored, coupons: &Coupons, owners: &RankOwners) -> bool {
    let owner = owners.get(&(claim.ranked.claim.campaign_id, claim.ranked.rank));
    !coupons.contains_key(&claim.coupon_id()) && owner.is_none_or(|owner| *owner == claim.coupon_id())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Claim;
    use stampede_vocab::{CampaignId, RequestId, Timestamp, UserId};
    use uuid::Uuid;

    fn claim(user: u128, rank: i32) -> Unstored {
        let campaign_id = CampaignId::from_uuid(Uuid::from_u128(1));
        let (user_id, request_id) = (UserId::from_uuid(Uuid::from_u128(user)), RequestId::parse("a").unwrap());
        let claim = Claim { campaign_id, user_id, request_id };
        let ranked = RankedClaim { claim, rank, quota: 9, claimed_at: Timestamp::from_micros(1), epoch: 1 };
        Unstored { ranked, traceparent: None }
    }

    fn owned_by(owner: &Unstored) -> RankOwners {
        RankOwners::from([((owner.ranked.claim.campaign_id, owner.ranked.rank), owner.coupon_id())])
    }

    #[test]
    fn a_claim_is_missing_unless_it_is_stored_or_its_rank_is_somebody_elses() {
        let (mine, other) = (claim(1, 3), claim(2, 3));
        let stored = Coupons::from([(mine.coupon_id(), mine.ranked.coupon())]);
        assert!(is_missing(&mine, &Coupons::new(), &RankOwners::new()));
        assert!(!is_missing(&mine, &stored, &RankOwners::new()), "stored between the two reads");
        assert!(!is_missing(&mine, &stored, &owned_by(&mine)));
        assert!(!is_missing(&mine, &Coupons::new(), &owned_by(&other)));
        assert!(is_missing(&mine, &Coupons::new(), &owned_by(&mine)), "the key decides, not the look");
    }
}
