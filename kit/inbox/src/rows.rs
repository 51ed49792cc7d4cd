//! The SQL of the inbox: which messages are recorded, and which keys are parked.

use crate::Message;
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use std::collections::{HashMap, HashSet};

/// Returns the messages that are recorded already, as (source, id).
pub async fn known(conn: &mut MySqlConnection, batch: &[Message]) -> Result<HashSet<(String, u64)>, DbError> {
    let mut known = HashSet::new();
    // One statement for each source, of which a batch has one or two: with a plain IN both servers use the index.
    for (source, ids) in by_source(batch) {
        let mut select = Statement::new("SELECT message_id FROM inbox WHERE source = ");
        select.push_bind(source).push(" AND message_id IN ").push_list(ids);
        let ids: Vec<(u64,)> = select.fetch_all(&mut *conn).await?;
        known.extend(ids.into_iter().map(|(id,)| (source.to_owned(), id)));
    }
    Ok(known)
}

fn by_source(batch: &[Message]) -> HashMap<&str, Vec<u64>> {
    let mut sources: HashMap<&str, Vec<u64>> = HashMap::new();
    for message in batch {
        sources.entry(&message.source).or_default().push(message.id);
    }
    sources
}

/// Records messages as applied. Fails with a unique violation if one is recorded already.
pub async fn record(conn: &mut MySqlConnection, batch: &[Message], now_us: i64) -> Result<(), DbError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut insert = Statement::new("INSERT INTO inbox (source, message_id, processed_us) ");
    insert.push_values(batch, |mut row, message| {
        row.push_bind(&message.source).push_bind(message.id).push_bind(now_us);
    });
    insert.execute(conn).await?;
    Ok(())
}

/// Topics and parked keys, with the offset from which each is parked.
pub type Parked = HashMap<(String, String), i64>;

/// Returns the parked keys that the batch has messages of.
pub async fn parked(conn: &mut MySqlConnection, batch: &[Message]) -> Result<Parked, DbError> {
    let mut parked = HashMap::new();
    // Mostly no key is parked, and EXISTS is the cheapest statement.
    let any: i64 = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM inbox_parked)").fetch_one(&mut *conn).await?;
    if any == 0 {
        return Ok(parked);
    }
    for (topic, keys) in by_topic(batch) {
        let mut select = Statement::new("SELECT message_key, from_offset FROM inbox_parked WHERE topic = ");
        select.push_bind(topic).push(" AND message_key IN ").push_list(keys);
        let rows: Vec<(String, i64)> = select.fetch_all(&mut *conn).await?;
        parked.extend(rows.into_iter().map(|(key, from)| ((topic.to_owned(), key), from)));
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

/// Parks the key of this message from this message on, unless it is parked already.
pub async fn park(conn: &mut MySqlConnection, message: &Message, now_us: i64) -> Result<(), DbError> {
    sqlx::query("INSERT IGNORE INTO inbox_parked (topic, message_key, from_offset, parked_us) VALUES (?, ?, ?, ?)")
        .bind(&message.topic)
        .bind(&message.key)
        .bind(message.offset)
        .bind(now_us)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes records from before this instant. Reads only the first `limit` of each source: its ids grow with time, so
/// the oldest come first. Returns the greatest number that it deleted of one source.
pub async fn purge(conn: &mut MySqlConnection, before_us: i64, limit: u32) -> Result<u64, DbError> {
    let sources: Vec<String> = sqlx::query_scalar("SELECT DISTINCT source FROM inbox").fetch_all(&mut *conn).await?;
    let mut most = 0;
    // One statement for each source, of which there are one or two.
    for source in sources {
        let done = sqlx::query(
            "DELETE FROM inbox WHERE source = ? AND processed_us < ? AND message_id <= (SELECT last FROM \
             (SELECT MAX(message_id) AS last FROM (SELECT message_id FROM inbox WHERE source = ? ORDER BY message_id LIMIT ?) \
             AS first_ones) AS bound)",
        )
        .bind(&source)
        .bind(before_us)
        .bind(&source)
        .bind(limit)
        .execute(&mut *conn)
        .await?;
        most = most.max(done.rows_affected());
    }
    Ok(most)
}

/// Returns the number of parked keys by topic.
pub async fn count_parked(conn: &mut MySqlConnection) -> Result<HashMap<String, u64>, DbError> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT topic, COUNT(*) FROM inbox_parked GROUP BY topic").fetch_all(conn).await?;
    Ok(counts.into_iter().map(|(topic, count)| (topic, count.unsigned_abs())).collect())
}
