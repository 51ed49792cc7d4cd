//! The SQL of the relay on the messages themselves. Only the look into many gaps reads ids again that were read before.

use crate::gaps::Gap;
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use std::collections::BTreeSet;

/// Most rows that are taken out of gaps at a time: a large transaction may fill them with many.
pub const FILLED: u32 = 1_000;
/// Most ids that are read of ranges with more in them than gaps. A test has no time to write so many.
pub const COVERED: u32 = if cfg!(test) { 300 } else { 50_000 };

/// A message.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub id: u64,
    pub partition_no: u16,
    #[sqlx(rename = "aggregateid")]
    pub aggregate_id: String,
    pub aggregate_version: i64,
    #[sqlx(rename = "type")]
    pub message_type: String,
    /// `None` in a row of a partition that another relay sends.
    pub payload: Option<Vec<u8>>,
    pub traceparent: Option<String>,
    /// `None` in a row of the version before.
    pub message_id: Option<String>,
    pub created_us: i64,
}

/// What to read.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Partitions whose payload is wanted, of which there is at least one.
    pub own: &'a [u16],
    /// Rows with these ids.
    pub ids: &'a [u64],
    /// Rows that have come into these gaps.
    pub gaps: &'a [Gap],
    /// Ids alone that are in these ranges by now.
    pub covers: &'a [Gap],
    /// The first `limit` rows behind this id.
    pub after: u64,
    pub limit: u32,
}

/// What was read, each in the order of ids.
#[derive(Debug, Default)]
pub struct Answer {
    pub by_id: Vec<Row>,
    pub filled: Vec<Row>,
    pub covered: Vec<u64>,
    pub next: Vec<Row>,
}

/// Reads all that is asked for in one round trip.
///
/// The gaps are read after what is behind the cursor, by a later snapshot: a message waits for the row of its aggregate
/// until the one before it has committed, so whoever sees a message behind the cursor sees in the gaps each one before
/// it. The other way round the one before could come in between. Of two that are behind the cursor one snapshot has
/// both, or not the later one.
pub async fn read(conn: &mut MySqlConnection, ask: &Ask<'_>) -> Result<Answer, DbError> {
    let mut statements = Statements::new();
    let by_id = (!ask.ids.is_empty()).then(|| {
        let mut select = select(ask.own);
        select.push("id IN ").push_list(ask.ids).push(" ORDER BY id");
        statements.push(select)
    });
    let next = (ask.limit > 0).then(|| {
        let mut select = select(ask.own);
        select.push("id > ").push_bind(ask.after).push(" ORDER BY id LIMIT ").push_bind(ask.limit);
        statements.push(select)
    });
    let filled = (!ask.gaps.is_empty()).then(|| {
        let mut select = select(ask.own);
        push_ranges(&mut select, ask.gaps);
        select.push(" ORDER BY id LIMIT ").push_bind(FILLED);
        statements.push(select)
    });
    let covered = (!ask.covers.is_empty()).then(|| {
        let mut select = Statement::new("SELECT id FROM outbox FORCE INDEX (PRIMARY) WHERE ");
        push_ranges(&mut select, ask.covers);
        select.push(" ORDER BY id LIMIT ").push_bind(COVERED);
        statements.push(select)
    });
    let answers = statements.run(conn).await?;
    let ids: Vec<(u64,)> = answers.rows(covered)?;
    Ok(Answer {
        by_id: answers.rows(by_id)?,
        filled: answers.rows(filled)?,
        covered: ids.into_iter().map(|(id,)| id).collect(),
        next: answers.rows(next)?,
    })
}

/// The index is forced, or a short table would be read whole, together with what others are writing to it.
fn select(own: &[u16]) -> Statement {
    let mut select = Statement::new(
        "SELECT id, partition_no, aggregateid, aggregate_version, type, traceparent, message_id, created_us, \
         CASE WHEN partition_no IN ",
    );
    select.push_list(own).push(" THEN payload END AS payload FROM outbox FORCE INDEX (PRIMARY) WHERE ");
    select
}

fn push_ranges(select: &mut Statement, gaps: &[Gap]) {
    let mut any = select.separated(" OR ");
    for gap in gaps {
        any.push("id BETWEEN ").push_bind_unseparated(gap.first);
        any.push_unseparated(" AND ").push_bind_unseparated(gap.last);
    }
}

/// Returns which ids of these ranges have a row by now. Fails with [`DbError::is_locked`] if the row of one was
/// inserted by a transaction that has not ended: this read takes locks, and does not wait for them.
pub async fn ids_in(conn: &mut MySqlConnection, gaps: &[Gap]) -> Result<BTreeSet<u64>, DbError> {
    let mut select = Statement::new("SELECT id FROM outbox FORCE INDEX (PRIMARY) WHERE ");
    push_ranges(&mut select, gaps);
    let rows: Vec<(u64,)> = select.push(" FOR UPDATE NOWAIT").fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The outcome of one step of the purge.
#[derive(Debug, PartialEq, Eq)]
pub struct Purged {
    /// The first message that was kept.
    pub kept: Option<u64>,
    /// The last one that was looked at: nothing old is left between `from` and here.
    pub last: u64,
    /// There may be more of it behind.
    pub is_full: bool,
}

/// Deletes messages behind the id `from` that were written before the first of these instants and sent from every
/// partition: those among the first `limit`. The second one is now.
///
/// A message is never kept for another one's sake: the clock of a writer may have been wrong.
pub async fn purge(
    conn: &mut MySqlConnection,
    from: u64,
    (before_us, now_us): (i64, i64),
    limit: u32,
) -> Result<Purged, DbError> {
    let floor: Option<u64> =
        sqlx::query_scalar("SELECT MIN(floor_id) FROM outbox_leases").fetch_one(&mut *conn).await?;
    let (count, last, kept, old, future): (i64, Option<u64>, Option<u64>, i64, i64) = sqlx::query_as(
        "SELECT COUNT(*), MAX(id), CAST(MIN(IF(created_us < ?, NULL, id)) AS UNSIGNED), \
         COUNT(IF(created_us < ?, 1, NULL)), COUNT(IF(created_us > ?, 1, NULL)) FROM (SELECT id, created_us FROM outbox \
         WHERE id > ? AND id <= ? ORDER BY id LIMIT ?) AS batch",
    )
    .bind(before_us)
    .bind(before_us)
    .bind(now_us)
    .bind(from)
    .bind(floor.unwrap_or(0))
    .bind(limit)
    .fetch_one(&mut *conn)
    .await?;
    let Some(last) = last else { return Ok(Purged { kept: None, last: from, is_full: false }) };
    if old > 0 {
        sqlx::query("DELETE FROM outbox WHERE id > ? AND id <= ? AND created_us < ?")
            .bind(from)
            .bind(last)
            .bind(before_us)
            .execute(conn)
            .await?;
    }
    // With most of it young, what is behind is hardly older. What is of the future says nothing.
    let is_full = count >= i64::from(limit) && 2 * (old + future) >= count;
    Ok(Purged { kept, last, is_full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_testkit::{Service, World};

    #[tokio::test]
    async fn rows_of_the_future_keep_no_other_from_being_purged() {
        let db = World::new().unwrap().schema(Service::Event).await.unwrap();
        let mut conn = db.acquire().await.unwrap();
        let future = i64::MAX;
        let rows = [(1_u64, 1), (2, future), (3, future), (4, future), (5, 1), (6, 1), (7, future), (8, 1), (9, 100)];
        for (id, created_us) in rows.into_iter().chain([(10, 100), (11, 100), (12, 1)]) {
            let mut insert = Statement::new(
                "INSERT INTO outbox (partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, id, \
                 created_us) VALUES (3, 'event', 'evt_1', 1, 'stampede.message.v1.EventOpened', '', ",
            );
            insert.push_bind(id).push(", ").push_bind(created_us).push(")");
            insert.execute(&mut conn).await.unwrap();
        }
        sqlx::raw_sql("UPDATE outbox_leases SET floor_id = 100").execute(&mut *conn).await.unwrap();
        let (mut purged, mut kept) = (Purged { kept: None, last: 0, is_full: true }, Vec::new());
        while purged.is_full {
            purged = purge(&mut conn, purged.last, (50, 200), 2).await.unwrap();
            kept.push(purged.kept);
            assert!(kept.len() < 10, "it comes to an end");
        }
        let left: Vec<u64> =
            sqlx::query_scalar("SELECT id FROM outbox ORDER BY id").fetch_all(&mut *conn).await.unwrap();
        assert_eq!((left, kept[0]), (vec![2, 3, 4, 7, 9, 10, 11, 12], Some(2)), "behind young ones nothing is old");
    }
}
