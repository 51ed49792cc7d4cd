//! ReleaseCoupon: the order service gives back what it held for an order that it did not write.

use crate::{
    domain::EndedOrder,
    usecase::{Error, batches_that_must_run, call, follow_orders},
};
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::Timestamp;
use std::sync::Arc;

/// Releases coupons. Clones share the batches.
#[derive(Clone)]
pub struct ReleaseCoupon {
    releaser: Batcher<EndedOrder, Result<(), DbError>>,
}

impl ReleaseCoupon {
    /// Releases them in this schema.
    pub fn new(db: Database) -> Self {
        let releaser = Batcher::new(batches_that_must_run("release_coupons"), move |released: Vec<EndedOrder>| {
            let (db, now) = (db.clone(), Timestamp::now());
            async move {
                let count = released.len();
                let outcome = release_all(&db, released, now).await;
                vec![outcome; count]
            }
        });
        Self { releaser }
    }

    /// Returns the coupon if it is held for this request of this order.
    pub async fn run(&self, released: EndedOrder) -> Result<(), Error> {
        call(&self.releaser, released).await
    }
}

async fn release_all(db: &Database, released: Vec<EndedOrder>, now: Timestamp) -> Result<(), DbError> {
    let released: Arc<[EndedOrder]> = released.into();
    db.transact("release_coupons", move |conn| {
        let released = released.clone();
        Box::pin(async move { follow_orders(conn, &released, now).await })
    })
    .await
}
