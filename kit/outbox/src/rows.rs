//! The SQL of the relay on messages. Only the query for many gaps reads ids again that were read before.

use crate::gaps::Gap;
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use std::collections::BTreeSet;

/// Most ids that are read from ranges that cover other ids than gaps too. Lower in tests, which cannot write so many.
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
    /// `None` in a row of the previous version.
    pub message_id: Option<String>,
    pub created_us: i64,
}

/// The rows to read.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// Partitions whose payload is wanted, of which there is at least one.
    pub own: &'a [u16],
    /// Rows with these ids.
    pub ids: &'a [u64],
    /// Rows that have appeared in these gaps.
    pub gaps: &'a [Gap],
    /// Most rows that are read from gaps: a large transaction may fill many.
    pub most_filled: usize,
    /// The ids, without rows, that are in these ranges now.
    pub covers: &'a [Gap],
    /// The first `limit` rows after this id.
    pub after: u64,
    pub limit: usize,
}

/// The rows that were read, each list ordered by id.
#[derive(Debug, Default)]
pub struct ReadResult {
    pub by_id: Vec<Row>,
    pub filled: Vec<Row>,
    pub covered: Vec<u64>,
    pub next: Vec<Row>,
}

/// Reads everything in one round trip.
///
/// The rows after the cursor are read first, and the gaps by a later snapshot. A transaction locks the row of its
/// aggregate until it commits, so a message that is visible after the cursor was committed after all earlier messages
/// of its aggregate, and a later snapshot sees those in the gaps. In the other order an earlier one could commit in
/// between. Of two messages after the cursor one snapshot has both, or only the earlier one.
pub async fn read(conn: &mut MySqlConnection, request: &ReadRequest<'_>) -> Result<ReadResult, DbError> {
    let mut statements = Statements::new();
    let by_id = (!request.ids.is_empty()).then(|| {
        let mut select = select(request.own);
        select.push("id IN ").push_list(request.ids).push(" ORDER BY id");
        statements.push(select)
    });
    let next = (request.limit > 0).then(|| {
        let mut select = select(request.own);
        select.push("id > ").push_bind(request.after).push(" ORDER BY id LIMIT ").push_bind(request.limit);
        statements.push(select)
    });
    let filled = (!request.gaps.is_empty()).then(|| {
        let mut select = select(request.own);
        push_ranges(&mut select, request.gaps);
        select.push(" ORDER BY id LIMIT ").push_bind(request.most_filled);
        statements.push(select)
    });
    let covered = (!request.covers.is_empty()).then(|| {
        let mut select = Statement::new("SELECT id FROM outbox FORCE INDEX (PRIMARY) WHERE ");
        push_ranges(&mut select, request.covers);
        select.push(" ORDER BY id LIMIT ").push_bind(COVERED);
        statements.push(select)
    });
    let answers = statements.run(conn).await?;
    let ids: Vec<(u64,)> = answers.rows(covered)?;
    Ok(ReadResult {
        by_id: answers.rows(by_id)?,
        filled: answers.rows(filled)?,
        covered: ids.into_iter().map(|(id,)| id).collect(),
        next: answers.rows(next)?,
    })
}

/// The index is forced: without it the server scans a short table, and meets rows that others are inserting.
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

/// Returns which ids of these ranges have a row now. A locking read with NOWAIT: fails with [`DbError::is_locked`] if a
/// row was inserted by a transaction that has not ended.
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
    /// The last one that was examined: nothing old is left between `from` and here.
    pub last: u64,
    /// There may be more old messages after it.
    pub is_full: bool,
}

/// Deletes messages after the id `from` that were written before the first of these instants and are at or below the
/// floors of all partitions, among the first `limit` rows. The second instant is now.
///
/// Each message is judged by its own time, not by its neighbours: the clock of a writer may have been wrong.
///
/// The index is forced: without it the server may scan what seems to be a short table, over all deleted rows that it
/// keeps for a long read view.
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
         FORCE INDEX (PRIMARY) WHERE id > ? AND id <= ? ORDER BY id LIMIT ?) AS batch",
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
        sqlx::query("DELETE o FROM outbox o FORCE INDEX (PRIMARY) WHERE o.id > ? AND o.id <= ? AND o.created_us < ?")
            .bind(from)
            .bind(last)
            .bind(before_us)
            .execute(conn)
            .await?;
    }
    // If most rows are young, later ones are hardly older. Rows with a time in the future are ignored for that.
    let is_full = count >= i64::from(limit) && 2 * (old + future) >= count;
    Ok(Purged { kept, last, is_full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_testkit::{Service, World};

    #[tokio::test]
    async fn rows_with_a_time_in_the_future_do_not_stop_the_purge_of_others() {
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
