//! The service's SQL and nothing else: free functions on a connection, one file per table.

pub mod attempts;
pub mod outbox;
pub mod payments;
pub mod refunds;
mod working_set;

pub use working_set::WorkingSet;

use crate::domain::AttemptKey;
use stampede_db::{DbError, Statement};
use stampede_vocab::{Currency, InvalidField, Money};

/// Whether rows are only read, or locked until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The last committed values.
    Plain,
    /// FOR UPDATE.
    Locked,
}

impl Reading {
    fn push_to(self, query: &mut Statement) {
        match self {
            Self::Plain => {}
            Self::Locked => {
                query.push(" FOR UPDATE");
            }
        }
    }
}

/// Appends a condition for these rows that both servers answer from the primary key.
fn push_keys(query: &mut Statement, keys: &[AttemptKey]) {
    query.push("(");
    let mut list = query.separated(" OR ");
    for key in keys {
        list.push("(payment_id = ")
            .push_bind_unseparated(key.payment_id.uuid())
            .push_unseparated(" AND attempt = ")
            .push_bind_unseparated(key.attempt)
            .push_unseparated(")");
    }
    query.push(")");
}

/// Returns the amount in two columns.
fn money(minor: i64, currency: &str) -> Result<Money, DbError> {
    let currency: Currency =
        currency.parse().map_err(|error: InvalidField| DbError::inconsistent(error.to_string()))?;
    Ok(Money::new(minor, currency))
}

/// Returns the counter in a column.
fn count(checks: i32) -> Result<u32, DbError> {
    u32::try_from(checks).map_err(|_| DbError::inconsistent("a count is negative"))
}
