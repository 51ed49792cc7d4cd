//! Stores ranked claims: a batch of coupons and their messages in one transaction. The unique keys decide, so a Redis
//! that was rolled back can issue neither a rank twice nor a second coupon to a user.

use crate::{
    domain::{Coupon, OutgoingMessage, RankedClaim},
    store::{
        self,
        coupons::{ById as Coupons, RankOwners},
    },
    usecase::{Acknowledger, StagingQueue},
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, Database, DbError, Place, Statements};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::{CampaignId, CouponId, backoff};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

/// Attempts of a batch that conflicts with rows of concurrent batches.
const MAX_ATTEMPTS: u32 = 5;

/// A ranked claim whose row may be missing.
#[derive(Debug, Clone)]
pub struct Unstored {
    ranked: RankedClaim,
    traceparent: Option<String>,
}

impl Unstored {
    /// Returns a claim whose message belongs to the trace of the current span.
    pub fn in_current_trace(ranked: RankedClaim) -> Self {
        Self { ranked, traceparent: current_traceparent() }
    }

    fn coupon_id(&self) -> CouponId {
        self.ranked.claim.coupon_id()
    }
}

/// The outcome for a ranked claim.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The user's coupon: of this claim, or of an earlier one.
    Coupon(Coupon),
    /// The rank is another user's, or beyond the quota: Redis is inconsistent with the rows.
    RankRefused,
    /// The user has a coupon, whose row cannot be read.
    Unreadable(DbError),
}

#[derive(Clone)]
pub struct StoreClaims {
    db: Database,
    outbox: Outbox,
    acknowledger: Acknowledger,
    staging: StagingQueue,
}

impl StoreClaims {
    /// Returns the use case on this schema. It passes stored claims to `acknowledger`, and inconsistent campaigns to
    /// `staging`.
    pub fn new(db: Database, outbox: Outbox, acknowledger: Acknowledger, staging: StagingQueue) -> Self {
        Self { db, outbox, acknowledger, staging }
    }

    /// Stores the claims that are not stored yet. Returns one answer for each claim, after the commit.
    pub async fn store(&self, claims: Vec<Unstored>) -> Result<Vec<Stored>, DbError> {
        let coupons = self.write(distinct(&claims).into()).await?;
        self.outbox.wake();
        let answers = claims.iter().map(|claim| self.answer(&claim.ranked, &coupons)).collect();
        // Acknowledges refused claims too: they are never stored, and would stay pending for ever.
        self.acknowledger.acknowledge(claims.into_iter().map(|claim| claim.ranked).collect());
        Ok(answers)
    }

    fn answer(&self, ranked: &RankedClaim, coupons: &Coupons) -> Stored {
        let coupon = match coupons.get(&ranked.claim.coupon_id()) {
            Some(Err(error)) => return Stored::Unreadable(error.clone()),
            Some(Ok(coupon)) => Some(coupon),
            None => None,
        };
        // No coupon: the rank is taken or beyond the quota. A coupon of another rank: the user was ranked twice. Both
        // happen only if Redis has lost ranks, so the campaign is rebuilt from the rows.
        if coupon.is_none_or(|coupon| coupon.rank != ranked.rank) {
            self.staging.invalidate(ranked.claim.campaign_id, ranked.epoch);
        }
        coupon.cloned().map_or(Stored::RankRefused, Stored::Coupon)
    }

    /// Writes the claims. Returns the coupons of their users after the commit.
    async fn write(&self, claims: Arc<[Unstored]>) -> Result<Coupons, DbError> {
        match self.insert_all(claims.clone()).await {
            Err(error) if error.unique_violation().is_some() => self.insert_missing(claims).await,
            outcome => outcome,
        }
    }

    /// Inserts all claims optimistically, without reading first: in a rush nearly every claim is new.
    async fn insert_all(&self, claims: Arc<[Unstored]>) -> Result<Coupons, DbError> {
        let mut opening = Statements::new();
        let versions = push_issue(&mut opening, &claims.iter().collect::<Vec<_>>());
        let work = self.db.transact_after("store_claims", opening, move |conn, read| {
            let claims = claims.clone();
            Box::pin(async move { append_messages(conn, &claims.iter().collect::<Vec<_>>(), &read, versions).await })
        });
        work.await
    }

    /// Inserts the claims that are not stored and whose ranks are free. Retries if a row is committed between the reads
    /// and the insert: the next attempt reads it.
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
                Err(error) if error.unique_violation().is_some() && attempt < MAX_ATTEMPTS => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Inserts claims that are not stored. Returns their coupons.
async fn issue(conn: &mut MySqlConnection, claims: &[&Unstored]) -> Result<Coupons, DbError> {
    let mut writes = Statements::new();
    let versions = push_issue(&mut writes, claims);
    let answers = writes.run(conn).await?;
    append_messages(conn, claims, &answers, versions).await
}

/// Adds the statements that insert claims, and then those that allocate a message version of each of their campaigns.
/// These come last: they lock the rows of the campaigns, which all batches need, until the commit.
fn push_issue(statements: &mut Statements, claims: &[&Unstored]) -> Option<Place> {
    let ranked: Vec<&RankedClaim> = claims.iter().map(|claim| &claim.ranked).collect();
    store::coupons::push_insert(statements, &ranked);
    // Sorted, so that all batches lock the campaigns in the same order and cannot deadlock.
    let campaigns: BTreeSet<CampaignId> = claims.iter().map(|claim| claim.ranked.claim.campaign_id).collect();
    store::campaigns::push_next_versions(statements, &campaigns)
}

/// Appends one message for each campaign of these claims, in the trace of its first one. Returns their coupons.
async fn append_messages(
    conn: &mut MySqlConnection,
    claims: &[&Unstored],
    answers: &Answers,
    versions: Option<Place>,
) -> Result<Coupons, DbError> {
    let versions = store::campaigns::versions(answers, versions)?;
    let mut batches = BTreeMap::<CampaignId, (Vec<Coupon>, Option<String>)>::new();
    for claim in claims {
        let batch = batches.entry(claim.ranked.claim.campaign_id);
        let (coupons, _) = batch.or_insert_with(|| (Vec::new(), claim.traceparent.clone()));
        coupons.push(claim.ranked.coupon());
    }
    let mut messages = Vec::with_capacity(batches.len());
    for (campaign_id, (coupons, traceparent)) in batches {
        let version = *versions
            .get(&campaign_id)
            .ok_or_else(|| DbError::inconsistent(format!("{campaign_id} has claims, but no row")))?;
        messages.push((OutgoingMessage::CouponsIssued { campaign_id, version, coupons }, traceparent));
    }
    store::outbox::append(conn, messages).await?;
    let coupons = claims.iter().map(|claim| claim.ranked.coupon());
    Ok(coupons.map(|coupon| (coupon.id, Ok(coupon))).collect())
}

/// Inserts the claims that are still missing. Returns the coupons of all of them.
async fn issue_missing(conn: &mut MySqlConnection, claims: &[Unstored]) -> Result<Coupons, DbError> {
    let ranked: Vec<&RankedClaim> = claims.iter().map(|claim| &claim.ranked).collect();
    // Read the owners of the ranks before the coupons of the users. Each read sees what is committed when it starts,
    // and another process may store the same claims between the two. Coupons are never deleted, so a rank that is taken
    // in the first read has its coupon in the second. In the other order a claim that is stored in between would have
    // no coupon and a taken rank, and would be refused as another user's.
    let owners = store::coupons::owners_of_ranks(conn, &ranked).await?;
    let ids: Vec<CouponId> = claims.iter().map(Unstored::coupon_id).collect();
    let mut coupons = store::coupons::find_many(conn, &ids).await?;
    let missing = claims.iter().filter(|claim| is_missing(claim, &coupons, &owners)).collect::<Vec<_>>();
    // May still violate a key, if yet another process commits now: `insert_missing` retries.
    coupons.extend(issue(conn, &missing).await?);
    Ok(coupons)
}

/// Returns whether the claim can still be stored: its user has no coupon, and no other user has its rank.
fn is_missing(claim: &Unstored, coupons: &Coupons, owners: &RankOwners) -> bool {
    let owner = owners.get(&(claim.ranked.claim.campaign_id, claim.ranked.rank));
    !coupons.contains_key(&claim.coupon_id()) && owner.is_none_or(|owner| *owner == claim.coupon_id())
}

/// Returns the claims that one INSERT can write: within the quota, with unique coupons and ranks. A duplicate inside
/// the statement would violate a key in every attempt.
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
        let stored = Coupons::from([(mine.coupon_id(), Ok(mine.ranked.coupon()))]);
        assert!(is_missing(&mine, &Coupons::new(), &RankOwners::new()));
        assert!(!is_missing(&mine, &stored, &RankOwners::new()), "stored between the two reads");
        assert!(!is_missing(&mine, &stored, &owned_by(&mine)));
        assert!(!is_missing(&mine, &Coupons::new(), &owned_by(&other)));
        assert!(is_missing(&mine, &Coupons::new(), &owned_by(&mine)), "the key decides, not the read");
    }
}
