//! ReleaseCoupon: the order service releases a hold for an order that it did not write.

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
    /// Returns the use case on this schema.
    pub fn new(db: Database) -> Self {
        let releaser = Batcher::new(batches_that_must_run("release_coupons"), move |released: Vec<EndedOrder>| {
            let (db, now) = (db.clone(), Timestamp::now());
            async move {
                let mut answers = vec![Ok(()); released.len()];
                match release_all(&db, released, now).await {
                    Ok(unreadable) => unreadable.into_iter().for_each(|(index, error)| answers[index] = Err(error)),
                    Err(error) => answers.fill(Err(error)),
                }
                answers
            }
        });
        Self { releaser }
    }

    /// Releases the coupon if it is held for this request of this order.
    pub async fn run(&self, released: EndedOrder) -> Result<(), Error> {
        call(&self.releaser, released).await
    }
}

async fn release_all(
    db: &Database,
    released: Vec<EndedOrder>,
    now: Timestamp,
) -> Result<Vec<(usize, DbError)>, DbError> {
    let released: Arc<[EndedOrder]> = released.into();
    db.transact("release_coupons", move |conn| {
        let released = released.clone();
        Box::pin(async move { follow_orders(conn, &released, now).await })
    })
    .await
}
