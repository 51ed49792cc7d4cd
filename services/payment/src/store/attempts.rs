//! The table `attempts`, which is also the queue of the charge worker and that of the reconciler.

use crate::{
    domain::{Attempt, AttemptKey, AttemptState, ChargeRequest},
    store::{Claim, KeyRow, ReadMode, count, money, push_keys, state_error},
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{PaymentId, Timestamp};
use std::collections::HashMap;
use uuid::Uuid;

const STATES: [&str; 6] = ["REQUESTED", "CHARGING", "UNKNOWN", "PARKED", "APPROVED", "DECLINED"];

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
struct ChargeRow {
    payment_id: Uuid,
    attempt: i32,
    payment_method: String,
    checks: i32,
    created_us: i64,
    amount_minor: i64,
    currency: String,
}

/// The state of an attempt that a claim expects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Claimable {
    /// It is queued.
    Requested,
    /// Its outcome is unknown and the next look-up is due, or its lease has expired: the process that charges it was
    /// killed or stalled.
    Due,
}

/// Claimed attempts of unknown outcome.
#[derive(Debug)]
pub struct ClaimedUnknown {
    /// The charges to look up; an error for one that cannot be read.
    pub charges: Vec<Result<ChargeRequest, DbError>>,
    /// Whether the limit was reached, so that more may be due. Other processes may have claimed some of those.
    pub may_be_more: bool,
}

/// The columns of a state.
struct Columns<'a> {
    state: &'static str,
    charge_id: Option<&'a str>,
    decline_code: Option<&'a str>,
    due: Option<Timestamp>,
    checks: u32,
}

/// The attempts of payments, by number; an error for a payment of which one cannot be read.
pub(super) type ByPayment = HashMap<PaymentId, Result<Vec<Attempt>, DbError>>;

/// Returns the attempts of these payments.
pub(super) async fn load(
    conn: &mut MySqlConnection,
    payments: &[PaymentId],
    mode: ReadMode,
) -> Result<ByPayment, DbError> {
    if payments.is_empty() {
        return Ok(ByPayment::new());
    }
    Ok(by_payment(select(payments, mode).fetch_all(conn).await?))
}

/// Adds the statement that locks the attempts of these payments, of which there is at least one.
pub(super) fn push_lock(statements: &mut Statements, payments: &[PaymentId]) -> Place {
    statements.push(select(payments, ReadMode::Locked))
}

/// Returns the attempts that such a statement has locked.
pub(super) fn locked(answers: &Answers, place: Place) -> Result<ByPayment, DbError> {
    Ok(by_payment(answers.rows(Some(place))?))
}

fn select(payments: &[PaymentId], mode: ReadMode) -> Statement {
    let mut query =
        Statement::concat(["SELECT ", COLUMNS, " FROM attempts FORCE INDEX (PRIMARY) WHERE payment_id IN "]);
    query.push_list(payments.iter().map(PaymentId::uuid));
    query.push(" ORDER BY payment_id, attempt");
    mode.push_to(&mut query);
    query
}

fn by_payment(rows: Vec<Row>) -> ByPayment {
    let mut attempts = ByPayment::new();
    for row in rows {
        let of_payment = attempts.entry(PaymentId::from_uuid(row.payment_id)).or_insert_with(|| Ok(Vec::new()));
        match row.into_attempt() {
            Ok(attempt) => {
                if let Ok(others) = of_payment {
                    others.push(attempt);
                }
            }
            Err(error) => *of_payment = Err(error),
        }
    }
    attempts
}

/// Adds the statement that inserts new attempts and updates changed ones, which must be locked.
pub fn push_save(statements: &mut Statements, attempts: &[(PaymentId, &Attempt)]) {
    if attempts.is_empty() {
        return;
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
    statements.push(query);
}

/// Claims queued attempts that are due at `from` or later, oldest first. Skips locked ones. Returns an error for a
/// claimed one that cannot be read.
pub async fn claim_requested(
    conn: &mut MySqlConnection,
    (from, limit): (Timestamp, u32),
    claim: Claim,
) -> Result<Vec<Result<ChargeRequest, DbError>>, DbError> {
    let mut queued = Statement::new("SELECT payment_id, attempt FROM attempts WHERE state = 'REQUESTED'");
    queued.push(" AND due_us >= ").push_bind(from.micros());
    queued.push(" ORDER BY due_us LIMIT ").push_bind(limit).push(" FOR UPDATE SKIP LOCKED");
    let keys: Vec<KeyRow> = queued.fetch_all(&mut *conn).await?;
    take(conn, &keys, Claimable::Requested, claim).await
}

/// Returns the number of attempts of unknown outcome.
pub async fn count_unknown(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM attempts WHERE state = 'UNKNOWN'").fetch_one(conn).await?;
    Ok(count.unsigned_abs())
}

/// Claims attempts of unknown outcome that are due at `from` or later, most overdue first. Skips locked ones. Returns
/// an error for a claimed one that cannot be read.
pub async fn claim_unknown(
    conn: &mut MySqlConnection,
    (from, limit): (Timestamp, u32),
    claim: Claim,
) -> Result<ClaimedUnknown, DbError> {
    // Found without locks first. A locking range scan of the index of due attempts would lock entries that charges
    // delete from it when they end, and deadlock with them.
    let mut due = Statement::new("SELECT payment_id, attempt FROM attempts WHERE ");
    Claimable::Due.push_to(&mut due, claim.now);
    due.push(" AND due_us >= ").push_bind(from.micros());
    due.push(" ORDER BY due_us LIMIT ").push_bind(limit);
    let due: Vec<KeyRow> = due.fetch_all(&mut *conn).await?;
    let may_be_more = due.len() >= limit as usize;
    if due.is_empty() {
        return Ok(ClaimedUnknown { charges: Vec::new(), may_be_more });
    }
    let due: Vec<_> = due.iter().map(KeyRow::key).collect();
    // Then locked by primary key, so that no claim waits for the rows of another.
    let mut free = Statement::new("SELECT payment_id, attempt FROM attempts FORCE INDEX (PRIMARY) WHERE ");
    push_keys(&mut free, &due);
    free.push(" FOR UPDATE SKIP LOCKED");
    let keys: Vec<KeyRow> = free.fetch_all(&mut *conn).await?;
    Ok(ClaimedUnknown { charges: take(conn, &keys, Claimable::Due, claim).await?, may_be_more })
}

/// Claims those of these attempts that are still in the expected state. The UPDATE is the claim: the read before it may
/// have locked nothing, and may be stale.
pub(super) async fn take(
    conn: &mut MySqlConnection,
    keys: &[KeyRow],
    expected: Claimable,
    claim: Claim,
) -> Result<Vec<Result<ChargeRequest, DbError>>, DbError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = keys.iter().map(KeyRow::key).collect();
    let mut update = Statement::new("UPDATE attempts FORCE INDEX (PRIMARY) SET state = ");
    update.push_bind(expected.claimed_as()).push(", due_us = ").push_bind(claim.until.micros());
    update.push(", claim = ").push_bind(claim.token);
    update.push(", updated_us = ").push_bind(claim.now.micros()).push(" WHERE ");
    push_keys(&mut update, &keys);
    update.push(" AND ");
    expected.push_to(&mut update, claim.now);
    if update.execute(&mut *conn).await? == 0 {
        return Ok(Vec::new());
    }
    charge_requests(conn, &keys, claim.token).await
}

async fn charge_requests(
    conn: &mut MySqlConnection,
    keys: &[AttemptKey],
    token: Uuid,
) -> Result<Vec<Result<ChargeRequest, DbError>>, DbError> {
    let mut query = Statement::new(
        "SELECT payment_id, attempt, payment_method, checks, attempts.created_us, amount_minor, currency \
         FROM attempts JOIN payments ON payments.id = payment_id WHERE ",
    );
    push_keys(&mut query, keys);
    query.push(" AND claim = ").push_bind(token);
    let rows: Vec<ChargeRow> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(ChargeRow::into_request).collect())
}

impl Claimable {
    fn push_to(self, query: &mut Statement, now: Timestamp) {
        match self {
            Self::Requested => {
                query.push("state = 'REQUESTED'");
            }
            Self::Due => {
                query.push("state IN ('CHARGING', 'UNKNOWN') AND due_us <= ").push_bind(now.micros());
            }
        }
    }

    fn claimed_as(self) -> &'static str {
        match self {
            Self::Requested => "CHARGING",
            Self::Due => "UNKNOWN",
        }
    }
}

impl ChargeRow {
    fn into_request(self) -> Result<ChargeRequest, DbError> {
        Ok(ChargeRequest {
            key: AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt },
            amount: money(self.amount_minor, &self.currency)?,
            payment_method: self.payment_method,
            checks: count(self.checks)?,
            requested_at: Timestamp::from_micros(self.created_us),
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
            ("PARKED", None, None) => Ok(AttemptState::Parked),
            ("APPROVED", None, None) => Ok(AttemptState::Approved { charge_id: self.provider_charge_id.clone() }),
            ("DECLINED", None, Some(code)) => Ok(AttemptState::Declined { code: code.clone() }),
            (state, due, code) => {
                let key = AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt };
                let what = format!("attempt {key} is {state:?}, due at {due:?}, declined with {code:?}");
                Err(state_error(&STATES, state, what))
            }
        }
    }
}

fn columns(attempt: &Attempt) -> Columns<'_> {
    let none = Columns { state: "", charge_id: None, decline_code: None, due: None, checks: attempt.state.checks() };
    match &attempt.state {
        AttemptState::Requested => Columns { state: "REQUESTED", due: Some(attempt.created_at), ..none },
        AttemptState::Charging { lease_until } => Columns { state: "CHARGING", due: Some(*lease_until), ..none },
        AttemptState::Unknown { next_check, .. } => Columns { state: "UNKNOWN", due: Some(*next_check), ..none },
        AttemptState::Parked => Columns { state: "PARKED", ..none },
        AttemptState::Approved { charge_id } => Columns { state: "APPROVED", charge_id: charge_id.as_deref(), ..none },
        AttemptState::Declined { code } => Columns { state: "DECLINED", decline_code: Some(code), ..none },
    }
}
