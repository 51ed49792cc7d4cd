//! ReleaseCoupon: the order service gives back what it held for an order that it did not write.

use crate::{
    domain::{EndedOrder, Failure},
    usecase::{ask, batches, follow_orders},
};
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::{SharedClock, Timestamp};
use std::sync::Arc;

/// Releases coupons. Clones share the batches.
#[derive(Clone)]
pub struct ReleaseCoupon {
    releaser: Batcher<EndedOrder, Result<(), Failure>>,
}

impl ReleaseCoupon {
    /// Releases them in this schema.
    pub fn new(db: Database, clock: SharedClock) -> Self {
        let releaser = Batcher::new(batches("release_coupons"), move |released: Vec<EndedOrder>| {
            let (db, now) = (db.clone(), clock.now());
            async move {
                let asked = released.len();
                let outcome = release_all(&db, released, now).await.map_err(Failure::from);
                vec![outcome; asked]
            }
        });
        Self { releaser }
    }

    /// Returns the coupon if it is held for this request of this order.
    pub async fn release(&self, released: EndedOrder) -> Result<(), Failure> {
        ask(&self.releaser, released).await
    }
}

async fn release_all(db: &Database, released: Vec<EndedOrder>, now: Timestamp) -> Result<(), DbError> {
    let released: Arc<[EndedOrder]> = released.into();
    db.transact("release_coupons", move |connection| {
        let released = released.clone();
        Box::pin(async move { follow_orders(connection, &released, now).await })
    })
    .await
}
