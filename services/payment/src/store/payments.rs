//! The table `payments`.

use crate::{
    domain::{Attempt, Payment, PaymentState},
    store::{ReadMode, attempts, money, state_error},
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{OrderId, PaymentId, Timestamp, UserId};
use uuid::Uuid;

const COLUMNS: &str = "id, order_id, user_id, state, currency, amount_minor, captured_minor, refunded_minor, \
                       captured_attempt, version, created_us, updated_us";

#[derive(FromRow)]
struct Row {
    id: Uuid,
    order_id: Uuid,
    user_id: Uuid,
    state: String,
    currency: String,
    amount_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    captured_attempt: Option<i32>,
    version: i64,
    created_us: i64,
    updated_us: i64,
}

/// The cursor of a page: the creation time and the id of a payment.
pub type After = (Timestamp, Uuid);

const STATES: [&str; 4] = ["OPEN", "CAPTURED", "REFUNDING", "REFUNDED"];

/// A stored payment, or why it cannot be read. The others are read all the same.
pub type Found = Result<Payment, Unreadable>;

/// A payment that cannot be read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub id: PaymentId,
    pub created_at: Timestamp,
    pub error: DbError,
}

/// Returns those of these payments that exist, with their attempts, in order of their ids.
pub async fn load(conn: &mut MySqlConnection, ids: &[PaymentId], mode: ReadMode) -> Result<Vec<Found>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = select(ids, mode).fetch_all(&mut *conn).await?;
    with_attempts(conn, rows, mode).await
}

/// The places of the statements that lock payments and their attempts.
#[derive(Debug, Clone, Copy)]
pub struct LockPlaces {
    payments: Place,
    attempts: Place,
}

/// Adds the statements that lock those of these payments that exist, and their attempts, in order of their ids.
pub fn push_lock(statements: &mut Statements, ids: &[PaymentId]) -> Option<LockPlaces> {
    if ids.is_empty() {
        return None;
    }
    let payments = statements.push(select(ids, ReadMode::Locked));
    Some(LockPlaces { payments, attempts: attempts::push_lock(statements, ids) })
}

/// Returns the payments that such statements have locked.
pub fn locked(answers: &Answers, places: Option<LockPlaces>) -> Result<Vec<Found>, DbError> {
    let Some(LockPlaces { payments, attempts }) = places else { return Ok(Vec::new()) };
    Ok(joined(answers.rows(Some(payments))?, attempts::locked(answers, attempts)?))
}

fn select(ids: &[PaymentId], mode: ReadMode) -> Statement {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM payments FORCE INDEX (PRIMARY) WHERE id IN "]);
    query.push_list(ids.iter().map(PaymentId::uuid));
    query.push(" ORDER BY id");
    mode.push_to(&mut query);
    query
}

/// Returns a page of this user's payments, or everybody's, newest first.
pub async fn list(
    conn: &mut MySqlConnection,
    user: Option<UserId>,
    after: Option<After>,
    limit: u32,
) -> Result<Vec<Found>, DbError> {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM payments WHERE TRUE"]);
    if let Some(user) = user {
        query.push(" AND user_id = ").push_bind(user.uuid());
    }
    if let Some((created_at, id)) = after {
        let created_us = created_at.micros();
        // The first condition bounds the index range; the second settles ties.
        query.push(" AND created_us <= ").push_bind(created_us);
        query.push(" AND (created_us < ").push_bind(created_us);
        query.push(" OR id < ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_us DESC, id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Row> = query.fetch_all(&mut *conn).await?;
    with_attempts(conn, rows, ReadMode::Plain).await
}

/// Adds the statement that inserts new payments. It fails if one exists: a missing row cannot be locked, so another
/// transaction may have inserted it since, and changed it.
pub fn push_insert(statements: &mut Statements, payments: &[&Payment]) {
    push_write(statements, payments, "");
}

/// Adds the statement that updates changed payments, which must be locked.
pub fn push_save(statements: &mut Statements, payments: &[&Payment]) {
    let changes = " ON DUPLICATE KEY UPDATE state = VALUES(state), captured_minor = VALUES(captured_minor), \
                   refunded_minor = VALUES(refunded_minor), captured_attempt = VALUES(captured_attempt), \
                   version = VALUES(version), updated_us = VALUES(updated_us)";
    push_write(statements, payments, changes);
}

fn push_write(statements: &mut Statements, payments: &[&Payment], on_duplicate: &'static str) {
    if payments.is_empty() {
        return;
    }
    let mut query = Statement::concat(["INSERT INTO payments (", COLUMNS, ") "]);
    query.push_values(payments, |mut row, payment| {
        row.push_bind(payment.id.uuid())
            .push_bind(payment.order_id.uuid())
            .push_bind(payment.user_id.uuid())
            .push_bind(payment.state.as_str())
            .push_bind(payment.amount.currency.as_str())
            .push_bind(payment.amount.minor_units)
            .push_bind(payment.captured().minor_units)
            .push_bind(payment.refunded().minor_units)
            .push_bind(payment.state.captured_attempt())
            .push_bind(payment.version)
            .push_bind(payment.created_at.micros())
            .push_bind(payment.updated_at.micros());
    });
    query.push(on_duplicate);
    statements.push(query);
}

async fn with_attempts(conn: &mut MySqlConnection, rows: Vec<Row>, mode: ReadMode) -> Result<Vec<Found>, DbError> {
    let ids: Vec<_> = rows.iter().map(|row| PaymentId::from_uuid(row.id)).collect();
    let attempts = attempts::load(conn, &ids, mode).await?;
    Ok(joined(rows, attempts))
}

fn joined(rows: Vec<Row>, mut attempts: attempts::ByPayment) -> Vec<Found> {
    let payments = rows.into_iter().map(|row| {
        let (id, created_at) = (PaymentId::from_uuid(row.id), Timestamp::from_micros(row.created_us));
        let attempts = attempts.remove(&id).unwrap_or_else(|| Ok(Vec::new()));
        let payment = attempts.and_then(|attempts| row.into_payment(attempts));
        payment.map_err(|error| Unreadable { id, created_at, error })
    });
    payments.collect()
}

impl Row {
    fn into_payment(self, attempts: Vec<Attempt>) -> Result<Payment, DbError> {
        let id = PaymentId::from_uuid(self.id);
        let state = match (self.state.as_str(), self.captured_attempt) {
            ("OPEN", None) => PaymentState::Open,
            ("CAPTURED", Some(attempt)) => PaymentState::Captured { attempt },
            ("REFUNDING", Some(attempt)) => PaymentState::Refunding { attempt },
            ("REFUNDED", Some(attempt)) => PaymentState::Refunded { attempt },
            (state, attempt) => {
                return Err(state_error(&STATES, state, format!("payment {id} is {state:?} by attempt {attempt:?}")));
            }
        };
        let payment = Payment {
            id,
            order_id: OrderId::from_uuid(self.order_id),
            user_id: UserId::from_uuid(self.user_id),
            amount: money(self.amount_minor, &self.currency)?,
            state,
            attempts,
            version: self.version,
            created_at: Timestamp::from_micros(self.created_us),
            updated_at: Timestamp::from_micros(self.updated_us),
        };
        let stored = (self.captured_minor, self.refunded_minor);
        if stored == (payment.captured().minor_units, payment.refunded().minor_units) {
            Ok(payment)
        } else {
            Err(DbError::inconsistent(format!("payment {id} is {state}, but captured and refunded {stored:?}")))
        }
    }
}
