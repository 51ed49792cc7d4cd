//! Counts the orders in states that are not terminal.

use crate::{
    domain::{MANY_ASKS, StateName},
    store,
};
use stampede_db::{Database, DbError};
use std::collections::BTreeMap;

/// Counts orders. Cheap to clone.
#[derive(Clone)]
pub struct CountOpenOrders {
    db: Database,
}

impl CountOpenOrders {
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Returns the number of orders that have requested an answer many times and still wait for it.
    pub async fn unanswered(&self) -> Result<u64, DbError> {
        self.db
            .run("count_unanswered_orders", |mut conn| async move {
                store::orders::count_unanswered(&mut conn, MANY_ASKS).await
            })
            .await
    }

    /// Returns the number of orders in each of these states, zero included.
    pub async fn run(&self) -> Result<BTreeMap<StateName, u64>, DbError> {
        let states = StateName::ALL.into_iter().filter(|state| !state.is_terminal());
        let mut counts: BTreeMap<StateName, u64> = states.map(|state| (state, 0)).collect();
        let open: Vec<StateName> = counts.keys().copied().collect();
        let counted = self
            .db
            .run("count_open_orders", |mut conn| async move { store::orders::count_by_state(&mut conn, &open).await })
            .await?;
        counts.extend(counted);
        Ok(counts)
    }
}
