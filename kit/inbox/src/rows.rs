//! The SQL of parked keys, and of which messages of a batch are not to be applied.

use crate::Message;
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Messages of a batch that are not to be applied, by their index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Those that are dead letters, whatever was decided on them, and repeats of those that were discarded.
    pub letters: Vec<usize>,
    /// Those behind a dead letter of their key.
    pub parked: Vec<usize>,
}

/// Where a key was parked.
#[derive(Debug, Clone, Copy)]
struct Park {
    from_offset: i64,
    /// Partition of the first letter; `None` for a letter of an earlier release, which is in Kafka only.
    partition: Option<i32>,
    /// When the key was parked.
    parked_us: i64,
}

impl Park {
    /// Whether it blocks the message. A lower offset of the same partition is a redelivery from before the dead letter,
    /// which changes nothing. But a message that was written since then is none: the topic was recreated, and its
    /// offsets start at 0 again.
    fn blocks(self, message: &Message) -> bool {
        let is_moved = self.partition.is_some_and(|partition| partition != message.partition);
        let is_newer = written_us(message).is_some_and(|written_us| written_us > self.parked_us);
        is_moved || is_newer || message.offset >= self.from_offset
    }
}

/// When the message was written, by the clock of its writer.
fn written_us(message: &Message) -> Option<i64> {
    let time: jiff::Timestamp = message.headers.text("ce_time")?.parse().ok()?;
    Some(time.as_microsecond())
}

/// Adds the statement that checks whether there are dead letters or parked keys at all. Usually there are none, and
/// EXISTS is the cheapest check.
pub fn push_any(statements: &mut Statements) -> Place {
    statements.push(Statement::new(
        "SELECT EXISTS (SELECT 1 FROM dead_letters), EXISTS (SELECT 1 FROM dead_letters WHERE state = 'DISCARDED'), \
         EXISTS (SELECT 1 FROM inbox_parked)",
    ))
}

/// Returns which messages of the batch are not to be applied, by the answer to that statement.
pub async fn aside(
    conn: &mut MySqlConnection,
    answers: &Answers,
    any: Place,
    batch: &[Message],
) -> Result<Aside, DbError> {
    let mut aside = Aside::default();
    let rows: Vec<(i64, i64, i64)> = answers.rows(Some(any))?;
    // No row is a failure of the server, and of no message in the batch.
    let any = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (any_letter, any_discarded, any_parked) = *any;
    if any_letter != 0 {
        let letters = letters(conn, batch).await?;
        let discarded = if any_discarded != 0 { discarded(conn, batch).await? } else { HashSet::new() };
        let is_letter = |message: &Message| letters.contains(&name(message)) || discarded.contains(&identity(message));
        aside.letters = (0..batch.len()).filter(|index| is_letter(&batch[*index])).collect();
    }
    if any_parked != 0 {
        let parked = parked(conn, batch).await?;
        let is_parked = |message: &Message| {
            let park = parked.get(&(message.topic.clone(), message.key.clone()));
            park.is_some_and(|park| park.blocks(message))
        };
        aside.parked =
            (0..batch.len()).filter(|index| !aside.letters.contains(index) && is_parked(&batch[*index])).collect();
    }
    Ok(aside)
}

/// Identifies a record: topic, partition, offset, source and id.
type Name = (String, i32, i64, String, String);

fn name(message: &Message) -> Name {
    let Message { topic, partition, offset, source, id, .. } = message;
    (topic.clone(), *partition, *offset, source.clone(), id.clone())
}

/// The dead letters between the first and the last offset that the batch has of each partition.
async fn letters(conn: &mut MySqlConnection, batch: &[Message]) -> Result<HashSet<Name>, DbError> {
    let mut ranges: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
    for message in batch {
        let offset = message.offset;
        let range = ranges.entry((&message.topic, message.partition)).or_insert((offset, offset));
        *range = (range.0.min(offset), range.1.max(offset));
    }
    let mut select =
        Statement::new("SELECT topic, partition_no, record_offset, source, message_id FROM dead_letters WHERE ");
    let mut any = select.separated(" OR ");
    for ((topic, partition), (first, last)) in ranges {
        any.push("(topic = ")
            .push_bind_unseparated(topic)
            .push_unseparated(" AND partition_no = ")
            .push_bind_unseparated(partition)
            .push_unseparated(" AND record_offset BETWEEN ")
            .push_bind_unseparated(first)
            .push_unseparated(" AND ")
            .push_bind_unseparated(last)
            .push_unseparated(")");
    }
    let rows: Vec<Name> = select.fetch_all(conn).await?;
    Ok(rows.into_iter().collect())
}

/// Identifies a message independent of its offset: topic, key, source and id.
type Identity = (String, String, String, String);

fn identity(message: &Message) -> Identity {
    let Message { topic, key, source, id, .. } = message;
    (topic.clone(), key.clone(), source.clone(), id.clone())
}

/// Returns whether a letter of this message was discarded, at whatever offset.
pub async fn is_discarded(conn: &mut MySqlConnection, message: &Message) -> Result<bool, DbError> {
    let discarded = discarded(conn, std::slice::from_ref(message)).await?;
    Ok(discarded.contains(&identity(message)))
}

/// The discarded letters of the keys that the batch has messages of.
async fn discarded(conn: &mut MySqlConnection, batch: &[Message]) -> Result<HashSet<Identity>, DbError> {
    let mut discarded = HashSet::new();
    for (topic, keys) in by_topic(batch) {
        let mut select = Statement::new(
            "SELECT topic, message_key, source, message_id FROM dead_letters WHERE state = 'DISCARDED' \
             AND kind <> 'UNREADABLE' AND topic = ",
        );
        select.push_bind(topic).push(" AND message_key IN ").push_list(keys);
        let rows: Vec<Identity> = select.fetch_all(&mut *conn).await?;
        discarded.extend(rows);
    }
    Ok(discarded)
}

/// Returns the parked keys that the batch has messages of.
async fn parked(conn: &mut MySqlConnection, batch: &[Message]) -> Result<HashMap<(String, String), Park>, DbError> {
    let mut parked = HashMap::new();
    for (topic, keys) in by_topic(batch) {
        let mut select = Statement::new(
            "SELECT p.message_key, p.from_offset, (SELECT d.partition_no FROM dead_letters d WHERE d.topic = p.topic \
             AND d.message_key = p.message_key AND d.record_offset = p.from_offset ORDER BY d.id LIMIT 1), \
             p.parked_us FROM inbox_parked p WHERE p.topic = ",
        );
        select.push_bind(topic).push(" AND p.message_key IN ").push_list(keys);
        let rows: Vec<(String, i64, Option<i32>, i64)> = select.fetch_all(&mut *conn).await?;
        let park = |(key, from_offset, partition, parked_us)| {
            ((topic.to_owned(), key), Park { from_offset, partition, parked_us })
        };
        parked.extend(rows.into_iter().map(park));
    }
    Ok(parked)
}

fn by_topic(batch: &[Message]) -> HashMap<&str, HashSet<&str>> {
    let mut topics: HashMap<&str, HashSet<&str>> = HashMap::new();
    for message in batch {
        topics.entry(&message.topic).or_default().insert(&message.key);
    }
    topics
}

/// Returns whether the key is parked, and keeps it so until the end of the transaction.
pub async fn lock_park(conn: &mut MySqlConnection, topic: &str, key: &str) -> Result<bool, DbError> {
    let from_offset: Option<i64> =
        sqlx::query_scalar("SELECT from_offset FROM inbox_parked WHERE topic = ? AND message_key = ? FOR UPDATE")
            .bind(topic)
            .bind(key)
            .fetch_optional(conn)
            .await?;
    Ok(from_offset.is_some())
}

/// Parks the key from this offset on, unless it is parked already.
pub async fn park(
    conn: &mut MySqlConnection,
    (topic, key): (&str, &str),
    from_offset: i64,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO inbox_parked (topic, message_key, from_offset, parked_us) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE parked_us = parked_us",
    )
    .bind(topic)
    .bind(key)
    .bind(from_offset)
    .bind(now_us)
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns whether the key is parked behind a letter that has no row: an earlier release wrote it to Kafka only.
pub async fn waits_for_kafka(conn: &mut MySqlConnection, topic: &str, key: &str) -> Result<bool, DbError> {
    let waits: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM inbox_parked p WHERE p.topic = ? AND p.message_key = ? \
         AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.topic = p.topic AND d.message_key = p.message_key \
                         AND d.record_offset = p.from_offset)",
    )
    .bind(topic)
    .bind(key)
    .fetch_one(conn)
    .await?;
    Ok(waits > 0)
}

/// Unparks the key: its messages are applied again.
pub async fn unpark(conn: &mut MySqlConnection, topic: &str, key: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM inbox_parked WHERE topic = ? AND message_key = ?")
        .bind(topic)
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns up to `limit` parked keys without open letters, in order: a page after this key. Keys whose first letter is
/// in Kafka only, from an earlier release, stay parked.
pub async fn settled(
    conn: &mut MySqlConnection,
    (topic, key): &(String, String),
    limit: u32,
) -> Result<Vec<(String, String)>, DbError> {
    let keys: Vec<(String, String)> = sqlx::query_as(
        "SELECT p.topic, p.message_key FROM inbox_parked p \
         WHERE (p.topic > ? OR (p.topic = ? AND p.message_key > ?)) \
         AND EXISTS (SELECT 1 FROM dead_letters d WHERE d.topic = p.topic AND d.message_key = p.message_key \
                     AND d.record_offset = p.from_offset) \
         AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.topic = p.topic AND d.message_key = p.message_key \
                         AND d.kind <> 'UNREADABLE' AND d.state IN ('WAITING', 'REPLAY')) \
         ORDER BY p.topic, p.message_key LIMIT ?",
    )
    .bind(topic)
    .bind(topic)
    .bind(key)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(keys)
}

/// Returns the number of parked keys by topic.
pub async fn count_parked(conn: &mut MySqlConnection) -> Result<HashMap<String, u64>, DbError> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT topic, COUNT(*) FROM inbox_parked GROUP BY topic").fetch_all(conn).await?;
    Ok(counts.into_iter().map(|(topic, count)| (topic, count.unsigned_abs())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Headers;

    fn message(partition: i32, offset: i64, time: &str) -> Message {
        Message {
            source: "/stampede/payment".to_owned(),
            id: "m".to_owned(),
            sequence: 0,
            message_type: "stampede.message.v1.PaymentApproved".to_owned(),
            key: "a".to_owned(),
            payload: Vec::new(),
            traceparent: None,
            topic: "t".to_owned(),
            partition,
            offset,
            headers: Headers::from_json(&format!(r#"[{{"key":"ce_time","text":"{time}"}}]"#)).unwrap(),
        }
    }

    #[test]
    fn a_park_blocks_messages_after_its_letter_or_written_since() {
        let parked_us = 1_700_000_000_000_000;
        let park = Park { from_offset: 500, partition: Some(0), parked_us };
        let (before, since) = ("2023-11-14T22:13:19Z", "2023-11-14T22:13:20.000001Z");
        assert!(park.blocks(&message(0, 500, before)));
        assert!(!park.blocks(&message(0, 499, before)) && !park.blocks(&message(0, 499, "")), "they are repeats");
        assert!(park.blocks(&message(0, 3, since)), "the topic was recreated");
        assert!(park.blocks(&message(1, 3, before)), "it has more partitions now");
    }
}
