//! The SQL of dead letters: messages that could not be applied, and what operators decide on them.

use crate::{
    Headers, Message,
    chain::{Chain, Chains},
    message,
    message::Unreadable,
    rows,
};
use sha2::{Digest, Sha256};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::DbError;
use std::collections::HashMap;

/// Longest reason and error that is stored, in characters.
const MAX_TEXT: usize = 2_000;

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be applied.
    Poison,
    /// Its key is parked behind an earlier dead letter.
    Parked,
    /// It is no message of ours.
    Unreadable,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "POISON",
            Self::Parked => "PARKED",
            Self::Unreadable => "UNREADABLE",
        }
    }
}

/// A record that becomes a dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    pub kind: Kind,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    record_key: Option<Vec<u8>>,
    source: String,
    id: String,
    pub message_type: String,
    headers: Headers,
    payload: Vec<u8>,
    pub reason: String,
}

impl Letter {
    /// Returns the dead letter of a message.
    pub fn of(message: &Message, kind: Kind, reason: &str) -> Self {
        Self {
            kind,
            topic: message.topic.clone(),
            partition: message.partition,
            offset: message.offset,
            key: message.key.clone(),
            record_key: None,
            source: message.source.clone(),
            id: message.id.clone(),
            message_type: message.message_type.clone(),
            headers: message.headers.clone(),
            payload: message.payload.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Identifies a record that is no message by a hash of its content: in a recreated topic another record may have the
/// same offset.
fn hash(record: &Unreadable) -> String {
    let (key, headers) = (record.key.as_deref().unwrap_or_default(), record.headers.to_json());
    let mut hash = Sha256::new();
    for part in [key, headers.as_bytes(), record.payload.as_deref().unwrap_or_default()] {
        // With the length of each part, so that two records cannot have the same concatenation.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into_iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<&Unreadable> for Letter {
    fn from(record: &Unreadable) -> Self {
        Self {
            kind: Kind::Unreadable,
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            key: String::new(),
            record_key: record.key.clone(),
            source: String::new(),
            id: hash(record),
            message_type: String::new(),
            headers: record.headers.clone(),
            payload: record.payload.clone().unwrap_or_default(),
            reason: record.to_string(),
        }
    }
}

/// The outcome of setting a record aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was written as a dead letter.
    Written,
    /// It was a dead letter already.
    Known,
    /// Its key is not parked any more: it is to be applied.
    NotParked,
}

/// Writes a dead letter of `consumer` and parks its key, in the caller's transaction. A letter that joins a chain which
/// is being replayed is replayed with it.
pub async fn set_aside(
    conn: &mut MySqlConnection,
    consumer: &str,
    letter: &Letter,
    chains: &mut Chains,
    now_us: i64,
) -> Result<Outcome, DbError> {
    let has_key = letter.kind != Kind::Unreadable;
    let mut chain = if has_key { chains.of(letter) } else { None };
    if chain.is_some_and(Chain::is_settled) {
        // All letters are decided on, and the worker that unparks the key has not come to it yet.
        rows::unpark(conn, &letter.topic, &letter.key).await?;
        chain = None;
        chains.set(letter, chain);
    }
    if letter.kind == Kind::Parked && chain.is_none() {
        return Ok(Outcome::NotParked);
    }
    if exists(conn, letter).await? {
        return Ok(Outcome::Known);
    }
    let is_replayed = chain.is_some_and(Chain::is_being_replayed);
    insert(conn, consumer, letter, if is_replayed { "REPLAY" } else { "WAITING" }, now_us).await?;
    if has_key {
        if chain.is_none() {
            rows::park(conn, (&letter.topic, &letter.key), letter.offset, now_us).await?;
        }
        chains.set(letter, Some(Chain::with(chain, is_replayed)));
    }
    Ok(Outcome::Written)
}

async fn exists(conn: &mut MySqlConnection, letter: &Letter) -> Result<bool, DbError> {
    let id: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM dead_letters WHERE topic = ? AND partition_no = ? AND record_offset = ? AND source = ? \
         AND message_id = ?",
    )
    .bind(&letter.topic)
    .bind(letter.partition)
    .bind(letter.offset)
    .bind(&letter.source)
    .bind(&letter.id)
    .fetch_optional(conn)
    .await?;
    Ok(id.is_some())
}

async fn insert(
    conn: &mut MySqlConnection,
    consumer: &str,
    letter: &Letter,
    state: &str,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO dead_letters (consumer, topic, partition_no, record_offset, message_key, record_key, source, \
         message_id, message_type, headers, payload, kind, reason, set_aside_us, state) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(consumer)
    .bind(&letter.topic)
    .bind(letter.partition)
    .bind(letter.offset)
    .bind(&letter.key)
    .bind(&letter.record_key)
    .bind(&letter.source)
    .bind(&letter.id)
    .bind(&letter.message_type)
    .bind(letter.headers.to_json())
    .bind(&letter.payload)
    .bind(letter.kind.as_str())
    .bind(cut(&letter.reason))
    .bind(now_us)
    .bind(state)
    .execute(conn)
    .await?;
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// A letter as it is stored.
#[derive(Debug, FromRow)]
pub struct Stored {
    pub id: i64,
    pub topic: String,
    pub partition_no: i32,
    pub record_offset: i64,
    pub message_key: String,
    pub record_key: Option<Vec<u8>>,
    source: String,
    message_id: String,
    message_type: String,
    headers: String,
    pub payload: Vec<u8>,
    pub reason: String,
    state: String,
}

impl Stored {
    /// Whether an operator has decided to replay it.
    pub fn is_to_be_replayed(&self) -> bool {
        self.state == "REPLAY"
    }

    /// Returns its headers. Fails if the row was edited and cannot be parsed.
    pub fn headers(&self) -> Result<Headers, serde_json::Error> {
        Headers::from_json(&self.headers)
    }

    /// Returns the message. Fails if the headers were edited and cannot be parsed.
    pub fn into_message(self) -> Result<Message, serde_json::Error> {
        let headers = self.headers()?;
        Ok(Message {
            source: self.source,
            id: self.message_id,
            sequence: message::sequence(headers.text("ce_sequence")),
            message_type: self.message_type,
            key: self.message_key,
            payload: self.payload,
            traceparent: headers.text("traceparent").map(str::to_owned),
            topic: self.topic,
            partition: self.partition_no,
            offset: self.record_offset,
            headers,
        })
    }
}

/// Returns the first open letter of the key, locked.
pub async fn first_open(conn: &mut MySqlConnection, topic: &str, key: &str) -> Result<Option<Stored>, DbError> {
    let first: Option<Stored> = sqlx::query_as(
        "SELECT id, topic, partition_no, record_offset, message_key, record_key, source, message_id, message_type, \
         headers, payload, reason, state FROM dead_letters WHERE topic = ? AND message_key = ? \
         AND kind <> 'UNREADABLE' AND state IN ('WAITING', 'REPLAY') ORDER BY id LIMIT 1 FOR UPDATE",
    )
    .bind(topic)
    .bind(key)
    .fetch_optional(conn)
    .await?;
    Ok(first)
}

/// Notes that a letter was applied, and unparks its key if it was the last open one.
pub async fn replayed(conn: &mut MySqlConnection, id: i64, topic: &str, key: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE dead_letters SET state = 'REPLAYED', attempts = attempts + 1, last_error = NULL WHERE id = ?")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    unpark_if_settled(conn, topic, key).await
}

/// Notes that a letter is discarded, since the same message was discarded before, and unparks its key if it was the
/// last open one.
pub async fn skipped(conn: &mut MySqlConnection, id: i64, topic: &str, key: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE dead_letters SET state = 'DISCARDED', last_error = 'the same message was discarded' WHERE id = ?",
    )
    .bind(id)
    .execute(&mut *conn)
    .await?;
    unpark_if_settled(conn, topic, key).await
}

/// Unparks the key if none of its letters is open, and the first of them is a row. The caller has locked its park.
pub async fn unpark_if_settled(conn: &mut MySqlConnection, topic: &str, key: &str) -> Result<(), DbError> {
    if first_open(conn, topic, key).await?.is_none() && !rows::waits_for_kafka(conn, topic, key).await? {
        rows::unpark(conn, topic, key).await?;
    }
    Ok(())
}

/// Notes why a letter could not be replayed. It waits for another decision, with all later letters of its key.
pub async fn not_replayed(
    conn: &mut MySqlConnection,
    id: i64,
    (topic, key): (&str, &str),
    error: &str,
) -> Result<(), DbError> {
    sqlx::query("UPDATE dead_letters SET attempts = attempts + 1, last_error = ? WHERE id = ?")
        .bind(cut(error))
        .bind(id)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE dead_letters SET state = 'WAITING' WHERE topic = ? AND message_key = ? AND state = 'REPLAY'")
        .bind(topic)
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes why the replay of a letter is retried.
pub async fn note_retry(conn: &mut MySqlConnection, id: i64, error: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE dead_letters SET attempts = attempts + 1, last_error = ? WHERE id = ? AND state = 'REPLAY'")
        .bind(cut(error))
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Rejects the replay of unreadable records, which are no messages.
pub async fn refuse_unreadable(conn: &mut MySqlConnection) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE dead_letters SET state = 'WAITING', attempts = attempts + 1, \
         last_error = 'it is no message, so it cannot be applied' WHERE state = 'REPLAY' AND kind = 'UNREADABLE'",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which work on dead letters is due.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Due {
    /// Some are to be replayed.
    pub replay: i64,
    /// Some have no copy in Kafka.
    pub copy: i64,
    /// Some keys are parked.
    pub parked: i64,
}

/// Returns which work is due.
pub async fn due(conn: &mut MySqlConnection) -> Result<Due, DbError> {
    let due: Due = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE state = 'REPLAY') AS replay, \
         EXISTS (SELECT 1 FROM dead_letters WHERE copied_us IS NULL OR copied_us < 0) AS copy, \
         EXISTS (SELECT 1 FROM inbox_parked) AS parked",
    )
    .fetch_one(conn)
    .await?;
    Ok(due)
}

/// Returns up to `limit` keys with a letter to be replayed, in order: a page after this key.
pub async fn to_replay(
    conn: &mut MySqlConnection,
    (topic, key): &(String, String),
    limit: u32,
) -> Result<Vec<(String, String)>, DbError> {
    let keys: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT topic, message_key FROM dead_letters WHERE state = 'REPLAY' AND kind <> 'UNREADABLE' \
         AND (topic > ? OR (topic = ? AND message_key > ?)) ORDER BY topic, message_key LIMIT ?",
    )
    .bind(topic)
    .bind(topic)
    .bind(key)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(keys)
}

/// Claims up to `limit` letters that have no copy in Kafka and no valid claim, and returns them: a page after this id.
/// The claim is the negated time of its end in the column of the copy's time, which also identifies it.
pub async fn claim_uncopied(
    conn: &mut MySqlConnection,
    behind: i64,
    (now_us, until_us): (i64, i64),
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let claim = sqlx::query(
        "UPDATE dead_letters SET copied_us = ? WHERE id > ? AND (copied_us IS NULL OR copied_us BETWEEN ? AND -1) \
         ORDER BY id LIMIT ?",
    );
    let claimed = claim.bind(-until_us).bind(behind).bind(-now_us).bind(limit).execute(&mut *conn).await?;
    if claimed.rows_affected() == 0 {
        return Ok(Vec::new());
    }
    let letters: Vec<Stored> = sqlx::query_as(
        "SELECT id, topic, partition_no, record_offset, message_key, record_key, source, message_id, message_type, \
         headers, payload, reason, state FROM dead_letters WHERE copied_us = ? ORDER BY id",
    )
    .bind(-until_us)
    .fetch_all(conn)
    .await?;
    Ok(letters)
}

/// Releases what is left of a claim.
pub async fn release_uncopied(conn: &mut MySqlConnection, until_us: i64) -> Result<(), DbError> {
    sqlx::query("UPDATE dead_letters SET copied_us = NULL WHERE copied_us = ?").bind(-until_us).execute(conn).await?;
    Ok(())
}

/// Notes that Kafka has the copy of a letter.
pub async fn copied(conn: &mut MySqlConnection, id: i64, now_us: i64) -> Result<(), DbError> {
    sqlx::query("UPDATE dead_letters SET copied_us = ? WHERE id = ?").bind(now_us).bind(id).execute(conn).await?;
    Ok(())
}

/// Returns the number of open letters by topic.
pub async fn count_open(conn: &mut MySqlConnection) -> Result<HashMap<String, u64>, DbError> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT topic, COUNT(*) FROM dead_letters WHERE state IN ('WAITING', 'REPLAY') GROUP BY topic")
            .fetch_all(conn)
            .await?;
    Ok(counts.into_iter().map(|(topic, count)| (topic, count.unsigned_abs())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(key: &[u8], payload: &[u8]) -> Letter {
        Letter::from(&Unreadable {
            topic: "t".to_owned(),
            partition: 0,
            offset: 7,
            part: "ce_type",
            key: Some(key.to_vec()),
            payload: Some(payload.to_vec()),
            headers: Headers::default(),
        })
    }

    #[test]
    fn another_record_at_the_place_of_an_unreadable_one_has_another_name() {
        let ids = [unreadable(b"a", b"b"), unreadable(b"a", b"c"), unreadable(b"ab", b"")].map(|letter| letter.id);
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
        assert_eq!(ids[0], unreadable(b"a", b"b").id);
        assert!(ids.iter().all(|id| id.len() == 64 && id.is_ascii()), "as the column holds it");
    }
}
