//! SQL only: free functions on a connection, one file per table.

pub mod anomalies;
pub mod attempts;
pub mod cursors;
pub mod ended_orders;
pub mod outbox;
pub mod payments;
pub mod refunds;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod unread_refunds;

use crate::domain::AttemptKey;
use sqlx::FromRow;
use stampede_db::{DbError, Statement};
use stampede_vocab::{Currency, Money, PaymentId, Timestamp};
use uuid::Uuid;

/// A claim of rows: a lease, and a token that identifies it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The unique token, which the claimed rows store.
    pub token: Uuid,
    /// The time of the claim.
    pub now: Timestamp,
    /// When the lease ends and others may claim the rows.
    pub until: Timestamp,
}

#[derive(FromRow)]
struct KeyRow {
    payment_id: Uuid,
    attempt: i32,
}

impl KeyRow {
    fn key(&self) -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt }
    }
}

/// Whether a read locks its rows until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// The last committed values.
    Plain,
    /// FOR UPDATE.
    Locked,
}

impl ReadMode {
    fn push_to(self, query: &mut Statement) {
        match self {
            Self::Plain => {}
            Self::Locked => {
                query.push(" FOR UPDATE");
            }
        }
    }
}

/// Appends a condition for these rows, in a form that both servers answer from the primary key.
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

/// Returns the error for a row whose state does not fit its other columns; `what` describes them. A state that is not
/// among `known` is one of a newer version.
fn state_error(known: &[&str], state: &str, what: String) -> DbError {
    if known.contains(&state) { DbError::inconsistent(what) } else { DbError::newer(what) }
}

/// Returns the amount in two columns.
fn money(minor: i64, currency: &str) -> Result<Money, DbError> {
    let currency = Currency::stored(currency).map_err(|error| DbError::inconsistent(error.to_string()))?;
    Ok(Money::new(minor, currency))
}

/// Returns the counter in a column.
fn count(checks: i32) -> Result<u32, DbError> {
    u32::try_from(checks).map_err(|_| DbError::inconsistent("a count is negative"))
}
