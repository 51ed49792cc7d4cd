//! Orphan holds: coupons held for an order that was never written, or whose end message is missing. The sweep looks up
//! the order of each old hold; this use case reads the pages of holds and applies the results.

use crate::{
    domain::EndedOrder,
    store::{self, coupons::Stored},
    usecase::{follow_free_orders, readable},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{CouponId, OrderId, Timestamp};
use std::{sync::Arc, time::Duration};

/// Most holds of one page: the limit of LookUpOrders.
const BATCH_SIZE: u32 = 256;

/// A page of old holds.
#[derive(Debug)]
pub struct HeldPage {
    /// Each coupon with the order that it is held for.
    pub holds: Vec<(CouponId, OrderId)>,
    /// Every hold of the page was last requested at this time or earlier.
    pub requested_before: Timestamp,
    /// Where the next page starts; `None` on the last.
    pub next: Option<(Timestamp, CouponId)>,
}

#[derive(Clone)]
pub struct ReturnOrphans {
    db: Database,
}

impl ReturnOrphans {
    /// Returns the use case on this schema.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Returns a page of holds that were last requested at least `age` ago, oldest first, after `after`.
    pub async fn page(&self, age: Duration, after: Option<(Timestamp, CouponId)>) -> Result<HeldPage, DbError> {
        let requested_before = Timestamp::now().minus(age);
        let coupons = self
            .db
            .run("held_coupons", |mut conn| async move {
                store::coupons::held_since(&mut conn, requested_before, after, BATCH_SIZE).await
            })
            .await?;
        // A row that cannot be read is skipped, and does not stop the sweep.
        let last = coupons.last().filter(|_| coupons.len() == BATCH_SIZE as usize);
        let next = last.map(|stored| (stored.updated_at, stored.id));
        Ok(HeldPage { holds: coupons.into_iter().filter_map(hold).collect(), requested_before, next })
    }

    /// Applies the ends of the orders of a page. Skips coupons that another transaction has locked: a later pass finds
    /// them again.
    pub async fn apply(&self, ended: Vec<EndedOrder>) -> Result<(), DbError> {
        if ended.is_empty() {
            return Ok(());
        }
        let (ended, now): (Arc<[EndedOrder]>, _) = (ended.into(), Timestamp::now());
        // Ends whose coupon cannot be read any more are left out: the next pass logs them.
        self.db
            .transact("return_orphans", move |conn| {
                let ended = ended.clone();
                Box::pin(async move { follow_free_orders(conn, &ended, now).await })
            })
            .await?;
        Ok(())
    }
}

fn hold(stored: Stored) -> Option<(CouponId, OrderId)> {
    let coupon = readable(stored)?;
    Some((coupon.id, coupon.state.order_id()?))
}
