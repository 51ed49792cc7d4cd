//! The table `anomalies`, which operators settle, with their decisions. The payments of the anomalies must be locked.

use crate::{
    domain::{Anomaly, AttemptKey, Subject, Verdict},
    store::push_keys,
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, ensure_rows};
use stampede_vocab::{PaymentId, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Longest detail that is stored.
const MAX_DETAIL_CHARS: usize = 1_024;

/// A decision to carry out.
#[derive(Debug, Clone, Copy)]
pub struct Decision {
    /// The id of its row.
    pub id: i64,
    /// The attempt that the anomaly is about.
    pub key: AttemptKey,
    pub subject: Subject,
    pub verdict: Verdict,
}

/// The id of the row of a decision, with what was read of it.
pub type Found = (i64, Result<Decision, DbError>);

#[derive(FromRow)]
struct KnownRow {
    payment_id: Uuid,
    attempt: i32,
    kind: String,
    detail: String,
}

#[derive(FromRow)]
struct DecisionRow {
    id: i64,
    payment_id: Uuid,
    attempt: i32,
    subject: String,
    verdict: Option<String>,
}

/// Inserts anomalies of charges or refunds that are parked now.
pub async fn park(conn: &mut MySqlConnection, anomalies: &[Anomaly], now: Timestamp) -> Result<(), DbError> {
    let anomalies: Vec<_> = anomalies.iter().map(|anomaly| (anomaly, detail(anomaly))).collect();
    insert(conn, &anomalies, now).await
}

/// Inserts those of these anomalies, which changed nothing, that are not stored yet. Returns them.
pub async fn note(conn: &mut MySqlConnection, anomalies: &[Anomaly], now: Timestamp) -> Result<Vec<Anomaly>, DbError> {
    if anomalies.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = anomalies.iter().map(Anomaly::key).collect();
    let mut query = Statement::new("SELECT payment_id, attempt, kind, detail FROM anomalies WHERE ");
    push_keys(&mut query, &keys);
    let rows: Vec<KnownRow> = query.fetch_all(&mut *conn).await?;
    let mut known: BTreeSet<_> = rows.into_iter().map(|row| (row.key(), row.kind, row.detail)).collect();
    let found = anomalies.iter().map(|anomaly| (anomaly, detail(anomaly)));
    let new: Vec<_> = found
        .filter(|(anomaly, detail)| known.insert((anomaly.key(), anomaly.kind().to_owned(), detail.clone())))
        .collect();
    insert(conn, &new, now).await?;
    Ok(new.into_iter().map(|(anomaly, _)| anomaly.clone()).collect())
}

/// Settles the anomalies of these attempts, whose end the provider has reported, or an operator has decided by another
/// anomaly. Clears their verdicts: a decision that was not carried out never will be.
pub async fn close(
    conn: &mut MySqlConnection,
    subject: Subject,
    keys: &[AttemptKey],
    now: Timestamp,
) -> Result<(), DbError> {
    if keys.is_empty() {
        return Ok(());
    }
    // By the index of the attempts: a scan of the index of the states would wait for locked anomalies of others.
    let mut update = Statement::new(
        "UPDATE anomalies FORCE INDEX (ix_anomalies_attempt) SET state = 'SETTLED', verdict = NULL, settled_us = ",
    );
    update.push_bind(now.micros()).push(" WHERE state IN ('OPEN', 'DECIDED') AND subject = ");
    update.push_bind(subject.as_str()).push(" AND ");
    push_keys(&mut update, keys);
    update.execute(conn).await?;
    Ok(())
}

/// Returns decisions to carry out, the oldest first; an error for one that cannot be read. Takes no locks.
pub async fn decided(conn: &mut MySqlConnection, limit: u32) -> Result<Vec<Found>, DbError> {
    let mut query =
        Statement::new("SELECT id, payment_id, attempt, subject, verdict FROM anomalies WHERE state = 'DECIDED'");
    query.push(" ORDER BY id LIMIT ").push_bind(limit);
    let rows: Vec<DecisionRow> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.into_decision())).collect())
}

/// Settles those of these decisions that are not carried out yet, and returns their ids.
pub async fn claim(conn: &mut MySqlConnection, decisions: &[Decision], now: Timestamp) -> Result<Vec<i64>, DbError> {
    if decisions.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Statement::new("SELECT id FROM anomalies WHERE state = 'DECIDED' AND id IN ");
    query.push_list(decisions.iter().map(|decision| decision.id)).push(" FOR UPDATE");
    let rows: Vec<(i64,)> = query.fetch_all(&mut *conn).await?;
    let ids: Vec<_> = rows.into_iter().map(|(id,)| id).collect();
    if !ids.is_empty() {
        let mut update = Statement::new("UPDATE anomalies FORCE INDEX (PRIMARY) SET state = 'SETTLED', settled_us = ");
        update.push_bind(now.micros()).push(" WHERE state = 'DECIDED' AND id IN ").push_list(ids.iter().copied());
        ensure_rows("settling locked anomalies", update.execute(conn).await?, ids.len())?;
    }
    Ok(ids)
}

/// Returns the number of anomalies that nobody has decided on.
pub async fn count_open(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM anomalies WHERE state = 'OPEN'").fetch_one(conn).await?;
    Ok(count.unsigned_abs())
}

async fn insert(conn: &mut MySqlConnection, anomalies: &[(&Anomaly, String)], now: Timestamp) -> Result<(), DbError> {
    if anomalies.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, found_us) ");
    query.push_values(anomalies, |mut row, (anomaly, detail)| {
        let key = anomaly.key();
        row.push_bind(key.payment_id.uuid())
            .push_bind(key.attempt)
            .push_bind(anomaly.subject().as_str())
            .push_bind(anomaly.kind())
            .push_bind(detail)
            .push_bind(now.micros());
    });
    query.execute(conn).await?;
    Ok(())
}

fn detail(anomaly: &Anomaly) -> String {
    anomaly.to_string().chars().take(MAX_DETAIL_CHARS).collect()
}

impl KnownRow {
    fn key(&self) -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt }
    }
}

impl DecisionRow {
    fn into_decision(self) -> Result<Decision, DbError> {
        let subject = match self.subject.as_str() {
            "CHARGE" => Subject::Charge,
            "REFUND" => Subject::Refund,
            other => return Err(DbError::newer(format!("anomaly {} is about a {other:?}", self.id))),
        };
        let verdict = self.verdict.as_deref().unwrap_or_default();
        let verdict =
            verdict.parse::<Verdict>().map_err(|error| DbError::newer(format!("anomaly {}: {error}", self.id)))?;
        let key = AttemptKey { payment_id: PaymentId::from_uuid(self.payment_id), attempt: self.attempt };
        Ok(Decision { id: self.id, key, subject, verdict })
    }
}
