//! Ends the orders whose time to be paid is over.

use super::{Change, Failure, Outcome, Transitions};
use crate::{
    domain::{Input, Terms},
    store,
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, SharedClock};

/// Orders of one transaction, of each state.
const AT_A_TIME: u32 = 250;

/// Expires orders.
pub struct ExpireOrders {
    db: Database,
    clock: SharedClock,
    terms: Terms,
    transitions: Transitions,
}

impl ExpireOrders {
    /// Expires orders of this schema under these terms.
    pub fn new(db: Database, clock: SharedClock, terms: Terms, transitions: Transitions) -> Self {
        Self { db, clock, terms, transitions }
    }

    /// Expires what is due, a batch at a time until nothing is left, and tells how many it were. Any number of replicas
    /// may do so at once: each looks again under the lock.
    pub async fn run(&self) -> Result<usize, Failure> {
        let mut expired = 0;
        loop {
            let due = self.db.in_time("due_orders", self.due()).await?;
            let found = due.len();
            let change = |order| Change { order, input: Input::DeadlinePassed, traceparent: None };
            let outcomes = match found {
                0 => return Ok(expired),
                _ => self.transitions.run("expire_orders", due.into_iter().map(change).collect()).await?,
            };
            expired += outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count();
            if found < AT_A_TIME as usize {
                return Ok(expired);
            }
        }
    }

    async fn due(&self) -> Result<Vec<OrderId>, DbError> {
        let mut connection = self.db.acquire().await?;
        store::orders::due(&mut connection, self.clock.now(), &self.terms, AT_A_TIME).await
    }
}
