//! The table `attempts`: also the queue of the charge worker and that of the reconciler.

use crate::{
    domain::{Attempt, AttemptKey, AttemptState, ChargeOrder},
    store::{Reading, count, money, push_keys},
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, ensure_rows};
use stampede_vocab::{PaymentId, Timestamp};
use std::collections::HashMap;
use uuid::Uuid;

const COLUMNS: &str = "payment_id, attempt, state, payment_method, provider_charge_id, decline_code, due_us, checks, \
                       traceparent, created_us, updated_us";

#[derive(FromRow)]
struct Row {
    payment_id: Uuid,
    attempt: i32,
    state: String,
    payment_method: String,
    provider_charge_id: Option<String>,
    decline_code: Option<String>,
    due_us: Option<i64>,
    checks: i32,
    traceparent: Option<String>,
    created_us: i64,
    updated_us: i64,
}

#[derive(FromRow)]
struct KeyRow {
    payment_id: Uuid,
    attempt: i32,
}

#[derive(FromRow)]
struct OrderRow {
    payment_id: Uuid,
    attempt: i32,
    payment_method: String,
    checks: i32,
    amount_minor: i64,
    currency: String,
}

/// The columns of a state.
struct Columns<'a> {
    state: &'static str,
    charge_id: Option<&'a str>,
    decline_code: Option<&'a str>,
    due: Option<Timestamp>,
    checks: u32,
}

/// Returns the attempts of these payments, in order of their numbers.
pub async fn load(
    conn: &mut MySqlConnection,
    payments: &[PaymentId],
    reading: Reading,
) -> Result<HashMap<PaymentId, Vec<Attempt>>, DbError> {
    if payments.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query =
        Statement::concat(["SELECT ", COLUMNS, " FROM attempts FORCE INDEX (PRIMARY) WHERE payment_id IN "]);
    query.push_list(payments.iter().map(PaymentId::uuid));
    query.push(" ORDER BY payment_id, attempt");
    reading.push_to(&mut query);
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    let mut attempts: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        attempts.entry(PaymentId::from_uuid(row.payment_id)).or_default().push(row.into_attempt()?);
    }
    Ok(attempts)
}

/// Inserts new attempts and updates changed ones, which must be locked.
pub async fn save(conn: &mut MySqlConnection, attempts: &[(PaymentId, &Attempt)]) -> Result<(), DbError> {
    if attempts.is_empty() {
        return Ok(());
    }
    let mut query = Statement::concat(["INSERT INTO attempts (", COLUMNS, ") "]);
    query.push_values(attempts, |mut row, (payment_id, attempt)| {
        let columns = columns(attempt);
        row.push_bind(payment_id.uuid())
            .push_bind(attempt.number)
            .push_bind(columns.state)
            .push_bind(&attempt.payment_method)
            .push_bind(columns.charge_id)
            .push_bind(columns.decline_code)
            .push_bind(columns.due.map(Timestamp::micros))
            .push_bind(columns.checks)
            .push_bind(&attempt.traceparent)
            .push_bind(attempt.created_at.micros())
            .push_bind(attempt.updated_at.micros());
    });
    query.push(
        " ON DUPLICATE KEY UPDATE state = VALUES(state), provider_charge_id = VALUES(provider_charge_id), \
         decline_code = VALUES(decline_code), due_us = VALUES(due_us), checks = VALUES(checks), \
         updated_us = VALUES(updated_us)",
    );
    query.execute(conn).await?;
    Ok(())
}

/// Claims queued attempts until the lease ends, oldest first. Skips those that another process is claiming.
pub async fn claim_requested(
    conn: &mut MySqlConnection,
    limit: u32,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Vec<ChargeOrder>, DbError> {
    let keys = sqlx::query_as(
        "SELECT payment_id, attempt FROM attempts WHERE state = 'REQUESTED' \
         ORDER BY due_us LIMIT ? FOR UPDATE SKIP LOCKED",
    )
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    claim(conn, &keys, "CHARGING", now, lease_until).await
}

/// Returns the number of attempts of unknown outcome.
pub async fn count_unknown(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM attempts WHERE state = 'UNKNOWN'").fetch_one(conn).await?;
    Ok(count.unsigned_abs())
}

/// Claims attempts of unknown outcome that are due for a look-up, until the lease ends. A charge whose lease has
/// expired is one of them: its process was killed or stalled. Skips those that another process is claiming.
pub async fn claim_unknown(
    conn: &mut MySqlConnection,
    limit: u32,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Vec<ChargeOrder>, DbError> {
    // Found without a lock first. A locking range scan of the index of due attempts would lock entries that ending
    // charges delete from it all the while, and deadlock with them.
    let mut due = Statement::new("SELECT payment_id, attempt FROM attempts WHERE ");
    push_due(&mut due, now);
    due.push(" ORDER BY due_us LIMIT ").push_bind(limit);
    let due: Vec<KeyRow> = due.fetch_all(&mut *conn).await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let due: Vec<_> = due.iter().map(KeyRow::key).collect();
    // Then locked by primary key, with the condition again: another process may have claimed or ended one in between.
    let mut still_due = Statement::new("SELECT payment_id, attempt FROM attempts FORCE INDEX (PRIMARY) WHERE ");
    push_keys(&mut still_due, &due);
    push_due(still_due.push(" AND "), now);
    still_due.push(" FOR UPDATE SKIP LOCKED");
    let keys: Vec<KeyRow> = still_due.fetch_all(&mut *conn).await?;
    claim(conn, &keys, "UNKNOWN", now, lease_until).await
}

fn push_due(query: &mut Statement, now: Timestamp) {
    query.push("state IN ('CHARGING', 'UNKNOWN') AND due_us <= ").push_bind(now.micros());
}

async fn claim(
    conn: &mut MySqlConnection,
    keys: &[KeyRow],
    state: &'static str,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Vec<ChargeOrder>, DbError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = keys.iter().map(KeyRow::key).collect();
    let mut query = Statement::new("UPDATE attempts SET state = ");
    query.push_bind(state).push(", due_us = ").push_bind(lease_until.micros());
    query.push(", updated_us = ").push_bind(now.micros()).push(" WHERE ");
    push_keys(&mut query, &keys);
    let claimed = query.execute(&mut *conn).await?;
    ensure_rows("a claim of attempts", claimed, keys.len())?;
    charge_orders(conn, &keys).await
}

async fn charge_orders(conn: &mut MySqlConnection, keys: &[AttemptKey]) -> Result<Vec<ChargeOrder>, DbError> {
    let mut query = Statement::new(
        "SELECT payment_id, attempt, payment_method, checks, amount_minor, currency \
         FROM attempts JOIN payments ON payments.id = payment_id WHERE ",
    );
    push_keys(&mut query, keys);
    let rows: Vec<OrderRow> = query.fetch_all(conn).await?;
    rows.into_iter().map(OrderRow::into_order).collect()
}

impl KeyRow {
    fn key(&self) -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt }
    }
}

impl OrderRow {
    fn into_order(self) -> Result<ChargeOrder, DbError> {
        Ok(ChargeOrder {
            key: AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt },
            amount: money(self.amount_minor, &self.currency)?,
            payment_method: self.payment_method,
            checks: count(self.checks)?,
        })
    }
}

impl Row {
    fn into_attempt(self) -> Result<Attempt, DbError> {
        Ok(Attempt {
            number: self.attempt,
            state: self.state()?,
            payment_method: self.payment_method,
            traceparent: self.traceparent,
            created_at: Timestamp::from_micros(self.created_us),
            updated_at: Timestamp::from_micros(self.updated_us),
            is_unsaved: false,
        })
    }

    fn state(&self) -> Result<AttemptState, DbError> {
        let due = self.due_us.map(Timestamp::from_micros);
        match (self.state.as_str(), due, &self.decline_code) {
            ("REQUESTED", Some(_), None) => Ok(AttemptState::Requested),
            ("CHARGING", Some(lease_until), None) => Ok(AttemptState::Charging { lease_until }),
            ("UNKNOWN", Some(next_check), None) => {
                Ok(AttemptState::Unknown { checks: count(self.checks)?, next_check })
            }
            ("APPROVED", None, None) => Ok(AttemptState::Approved { charge_id: self.provider_charge_id.clone() }),
            ("DECLINED", None, Some(code)) => Ok(AttemptState::Declined { code: code.clone() }),
            (state, due, code) => Err(DbError::inconsistent(format!(
                "attempt {} of payment {} is {state:?}, due at {due:?}, declined with {code:?}",
                self.attempt,
                PaymentId::from_uuid(self.payment_id),
            ))),
        }
    }
}

fn columns(attempt: &Attempt) -> Columns<'_> {
    let none = Columns { state: "", charge_id: None, decline_code: None, due: None, checks: attempt.state.checks() };
    match &attempt.state {
        AttemptState::Requested => Columns { state: "REQUESTED", due: Some(attempt.created_at), ..none },
        AttemptState::Charging { lease_until } => Columns { state: "CHARGING", due: Some(*lease_until), ..none },
        AttemptState::Unknown { next_check, .. } => Columns { state: "UNKNOWN", due: Some(*next_check), ..none },
        AttemptState::Approved { charge_id } => Columns { state: "APPROVED", charge_id: charge_id.as_deref(), ..none },
        AttemptState::Declined { code } => Columns { state: "DECLINED", decline_code: Some(code), ..none },
    }
}
