//! The coupons that one transaction decides on: locked, as they are after the steps so far, written once at the end.

use crate::{
    domain::Coupon,
    store::{self, coupons::ById},
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Place, Statements};
use stampede_vocab::{CampaignId, CouponId, Timestamp};
use std::collections::HashMap;

/// Coupons that are locked until the transaction ends, as they are after the steps so far.
pub struct WorkingSet {
    /// As they were when they were locked.
    locked: ById,
    /// After the last step of each that has made one.
    changed: HashMap<CouponId, Coupon>,
}

impl WorkingSet {
    /// Locks those of the ids that exist.
    pub async fn lock(conn: &mut MySqlConnection, ids: Vec<CouponId>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::lock_many(conn, &distinct(ids)).await?))
    }

    /// Locks those of the ids that exist and that nobody else has locked.
    pub async fn lock_free(conn: &mut MySqlConnection, ids: Vec<CouponId>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::lock_free(conn, &distinct(ids)).await?))
    }

    /// Adds the statement that locks those of the ids that exist.
    pub fn push_lock(statements: &mut Statements, ids: Vec<CouponId>) -> Option<Place> {
        store::coupons::push_lock(statements, &distinct(ids))
    }

    /// Those that such a statement has locked.
    pub fn read(answers: &Answers, place: Option<Place>) -> Result<Self, DbError> {
        Ok(Self::unchanged(store::coupons::locked(answers, place)?))
    }

    fn unchanged(locked: ById) -> Self {
        Self { locked, changed: HashMap::new() }
    }

    /// The coupon as it is by now; `None` if it does not exist, or cannot be read.
    pub fn get(&self, id: CouponId) -> Option<&Coupon> {
        self.changed.get(&id).or_else(|| self.locked.get(&id)?.as_ref().ok())
    }

    /// Why the coupon cannot be read; `None` if it can, or does not exist.
    pub fn error(&self, id: CouponId) -> Option<&DbError> {
        self.locked.get(&id)?.as_ref().err()
    }

    /// The campaigns that they are of.
    pub fn campaign_ids(&self) -> Vec<CampaignId> {
        self.locked.values().flatten().map(|coupon| coupon.campaign_id).collect()
    }

    /// Records the coupon as a transition has left it.
    pub fn put(&mut self, stepped: Coupon) {
        self.changed.insert(stepped.id, stepped);
    }

    /// Writes those that have made a step, as of `now`.
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
