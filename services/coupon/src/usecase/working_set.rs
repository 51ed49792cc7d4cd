//! The coupons that one transaction has locked, with its changes so far. They are written once at the end.

use crate::{
    domain::Coupon,
    store::{self, coupons::ById},
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Place, Statements};
use stampede_vocab::{CampaignId, CouponId, Timestamp};
use std::collections::HashMap;

/// Coupons that are locked until the transaction ends, as they are after the transitions so far.
pub struct WorkingSet {
    /// The coupons as they were read.
    locked: ById,
    /// The changed coupons, after their last transition.
    changed: HashMap<CouponId, Coupon>,
}

impl WorkingSet {
    /// Locks the coupons of these ids that exist.
    pub async fn lock(conn: &mut MySqlConnection, ids: Vec<CouponId>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::lock_many(conn, &distinct(ids)).await?))
    }

    /// Locks the coupons of these ids that exist. Skips those that another transaction has locked.
    pub async fn lock_free(conn: &mut MySqlConnection, ids: Vec<CouponId>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::lock_free(conn, &distinct(ids)).await?))
    }

    /// Adds the statement that locks the coupons of these ids that exist.
    pub fn push_lock(statements: &mut Statements, ids: Vec<CouponId>) -> Option<Place> {
        store::coupons::push_lock(statements, &distinct(ids))
    }

    /// Returns the coupons that such a statement has locked.
    pub fn read(answers: &Answers, place: Option<Place>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::locked(answers, place)?))
    }

    fn unchanged(locked: ById) -> Self {
        Self { locked, changed: HashMap::new() }
    }

    /// Returns the coupon after the changes so far; `None` if it does not exist, or cannot be read.
    pub fn get(&self, id: CouponId) -> Option<&Coupon> {
        self.changed.get(&id).or_else(|| self.locked.get(&id)?.as_ref().ok())
    }

    /// Returns why the coupon cannot be read; `None` if it can be, or does not exist.
    pub fn error(&self, id: CouponId) -> Option<&DbError> {
        self.locked.get(&id)?.as_ref().err()
    }

    pub fn campaign_ids(&self) -> Vec<CampaignId> {
        self.locked.values().flatten().map(|coupon| coupon.campaign_id).collect()
    }

    /// Records the coupon after a transition.
    pub fn put(&mut self, coupon: Coupon) {
        self.changed.insert(coupon.id, coupon);
    }

    /// Writes the changed coupons, as of `now`.
    pub async fn save(self, conn: &mut MySqlConnection, now: Timestamp) -> Result<(), DbError> {
        let changed: Vec<Coupon> = self.changed.into_values().collect();
        store::coupons::write_states(conn, &changed, now).await
    }
}

fn distinct(mut ids: Vec<CouponId>) -> Vec<CouponId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
