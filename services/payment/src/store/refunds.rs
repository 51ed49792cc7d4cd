//! The table `refunds`, which is also the queue of the refund worker.

use crate::{
    domain::{AttemptKey, Refund, RefundState},
    store::{Claim, KeyRow, count, money, push_keys, state_error},
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{PaymentId, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

const STATES: [&str; 3] = ["REQUESTED", "PARKED", "REFUNDED"];

const COLUMNS: &str = "payment_id, attempt, state, provider_charge_id, provider_refund_id, currency, amount_minor, \
                       due_us, checks, traceparent, created_us, updated_us";

#[derive(FromRow)]
struct Row {
    payment_id: Uuid,
    attempt: i32,
    state: String,
    provider_charge_id: Option<String>,
    provider_refund_id: Option<String>,
    currency: String,
    amount_minor: i64,
    due_us: Option<i64>,
    checks: i32,
    traceparent: Option<String>,
    created_us: i64,
    updated_us: i64,
}

/// Adds the statement that inserts new refunds. It leaves one that exists unchanged: a charge is refunded once.
pub fn push_insert(statements: &mut Statements, refunds: &[Refund]) {
    if !refunds.is_empty() {
        statements.push(upsert(refunds, " ON DUPLICATE KEY UPDATE payment_id = payment_id"));
    }
}

/// Writes changed refunds. They must be locked.
pub async fn save(conn: &mut MySqlConnection, refunds: &[Refund]) -> Result<(), DbError> {
    if refunds.is_empty() {
        return Ok(());
    }
    let changes = " ON DUPLICATE KEY UPDATE state = VALUES(state), provider_refund_id = VALUES(provider_refund_id), \
                   due_us = VALUES(due_us), checks = VALUES(checks), updated_us = VALUES(updated_us)";
    upsert(refunds, changes).execute(conn).await?;
    Ok(())
}

/// Returns all refunds of these payments, locked; an error for one that cannot be read.
pub async fn lock(
    conn: &mut MySqlConnection,
    payments: &[PaymentId],
) -> Result<BTreeMap<AttemptKey, Result<Refund, DbError>>, DbError> {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM refunds FORCE INDEX (PRIMARY) WHERE payment_id IN "]);
    query.push_list(payments.iter().map(PaymentId::uuid));
    query.push(" ORDER BY payment_id, attempt FOR UPDATE");
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.of(), row.into_refund())).collect())
}

/// Returns one refund; `None` if there is none.
pub async fn find(conn: &mut MySqlConnection, of: AttemptKey) -> Result<Option<Refund>, DbError> {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM refunds WHERE "]);
    push_keys(&mut query, &[of]);
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    rows.into_iter().next().map(Row::into_refund).transpose()
}

/// Claims refunds that are due at `from` or later, most overdue first. Skips locked ones. Returns an error for a
/// claimed one that cannot be read.
pub async fn claim_due(
    conn: &mut MySqlConnection,
    (from, limit): (Timestamp, u32),
    claim: Claim,
) -> Result<Vec<Result<Refund, DbError>>, DbError> {
    let mut query = Statement::new("SELECT payment_id, attempt FROM refunds WHERE ");
    push_due(&mut query, claim.now);
    query.push(" AND due_us >= ").push_bind(from.micros());
    query.push(" ORDER BY due_us LIMIT ").push_bind(limit).push(" FOR UPDATE SKIP LOCKED");
    let keys: Vec<KeyRow> = query.fetch_all(&mut *conn).await?;
    take(conn, &keys, claim).await
}

/// Claims those of these refunds that are still due. The UPDATE is the claim.
pub(super) async fn take(
    conn: &mut MySqlConnection,
    keys: &[KeyRow],
    claim: Claim,
) -> Result<Vec<Result<Refund, DbError>>, DbError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = keys.iter().map(KeyRow::key).collect();
    let mut update = Statement::new("UPDATE refunds FORCE INDEX (PRIMARY) SET due_us = ");
    update.push_bind(claim.until.micros()).push(", claim = ").push_bind(claim.token);
    update.push(", updated_us = ").push_bind(claim.now.micros()).push(" WHERE ");
    push_keys(&mut update, &keys);
    update.push(" AND ");
    push_due(&mut update, claim.now);
    if update.execute(&mut *conn).await? == 0 {
        return Ok(Vec::new());
    }
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM refunds WHERE "]);
    push_keys(&mut query, &keys);
    query.push(" AND claim = ").push_bind(claim.token);
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(Row::into_refund).collect())
}

fn push_due(query: &mut Statement, now: Timestamp) {
    query.push("state = 'REQUESTED' AND due_us <= ").push_bind(now.micros());
}

fn upsert(refunds: &[Refund], on_duplicate: &'static str) -> Statement {
    let mut query = Statement::concat(["INSERT INTO refunds (", COLUMNS, ") "]);
    query.push_values(refunds, |mut row, refund| {
        let (state, refund_id, due) = match &refund.state {
            RefundState::Requested { due, .. } => ("REQUESTED", None, Some(due.micros())),
            RefundState::Parked => ("PARKED", None, None),
            RefundState::Refunded { refund_id } => ("REFUNDED", refund_id.as_deref(), None),
        };
        row.push_bind(refund.of.payment_id.uuid())
            .push_bind(refund.of.attempt)
            .push_bind(state)
            .push_bind(&refund.charge_id)
            .push_bind(refund_id)
            .push_bind(refund.amount.currency.as_str())
            .push_bind(refund.amount.minor_units)
            .push_bind(due)
            .push_bind(refund.checks())
            .push_bind(&refund.traceparent)
            .push_bind(refund.created_at.micros())
            .push_bind(refund.updated_at.micros());
    });
    query.push(on_duplicate);
    query
}

impl Row {
    fn of(&self) -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt }
    }

    fn into_refund(self) -> Result<Refund, DbError> {
        let of = self.of();
        let state = match (self.state.as_str(), self.due_us.map(Timestamp::from_micros)) {
            ("REQUESTED", Some(due)) => RefundState::Requested { checks: count(self.checks)?, due },
            ("PARKED", None) => RefundState::Parked,
            ("REFUNDED", None) => RefundState::Refunded { refund_id: self.provider_refund_id },
            (state, due) => {
                return Err(state_error(&STATES, state, format!("the refund of {of} is {state:?} and due at {due:?}")));
            }
        };
        Ok(Refund {
            of,
            charge_id: self.provider_charge_id,
            amount: money(self.amount_minor, &self.currency)?,
            state,
            traceparent: self.traceparent,
            created_at: Timestamp::from_micros(self.created_us),
            updated_at: Timestamp::from_micros(self.updated_us),
        })
    }
}
