//! Reads the events that are due next, past those that stay due.

use super::events::next_due;
use crate::domain::Due;
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{EventId, Timestamp};
use std::collections::BTreeSet;

/// Reads pages of the events that are due before `until`, up to the first page with one that is not due at `now`, or
/// was not tried.
pub async fn read_ahead(
    conn: &mut MySqlConnection,
    (now, until): (Timestamp, Timestamp),
    tried: &BTreeSet<EventId>,
    page_size: u32,
) -> Result<Vec<Due>, DbError> {
    let mut upcoming: Vec<Due> = Vec::new();
    loop {
        let page = next_due(conn, upcoming.last().copied(), until, page_size).await?;
        let is_last = page.len() < page_size as usize;
        let is_tried = page.iter().all(|due| due.due_at <= now && tried.contains(&due.event_id));
        upcoming.extend(page);
        if is_last || !is_tried {
            return Ok(upcoming);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;
    use stampede_testkit::{Service, World};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_micros(1_000);
    const UNTIL: Timestamp = Timestamp::from_micros(2_000);

    /// Inserts an event that opens then.
    async fn plan(conn: &mut MySqlConnection, id: u128, opens_at_us: i64) -> Result<EventId> {
        let insert = "INSERT INTO events (id, creator_id, request_id, request_fingerprint, name, state, opens_at_us, \
                      closes_at_us, due_at_us, version, created_us, updated_us) \
                      VALUES (?, ?, ?, ?, 'A sale', 'SCHEDULED', ?, 9000, ?, 1, 1, 1)";
        let event_id = EventId::from_uuid(Uuid::from_u128(id));
        sqlx::query(insert)
            .bind(event_id.uuid())
            .bind(Uuid::from_u128(1))
            .bind(format!("sale-{id}"))
            .bind(vec![0_u8; 32])
            .bind(opens_at_us)
            .bind(opens_at_us)
            .execute(conn)
            .await?;
        Ok(event_id)
    }

    #[tokio::test]
    async fn events_that_stay_due_hide_none_behind_them_however_many_they_are() -> Result<()> {
        let db = World::new()?.schema(Service::Event).await?;
        let mut conn = db.acquire().await?;
        let mut planned = Vec::new();
        // Several of one instant, also across a page; the last two are ahead.
        for (id, opens_at_us) in [(5, 10), (6, 10), (7, 10), (4, 20), (3, 30), (2, 1_500), (1, 1_600)] {
            planned.push(plan(&mut conn, id, opens_at_us).await?);
        }
        for (count, seen) in [(0, 2), (1, 2), (2, 4), (3, 4), (4, 6), (5, 6)] {
            let tried = planned[..count].iter().copied().collect();
            let read: Vec<Due> = read_ahead(&mut conn, (NOW, UNTIL), &tried, 2).await?;
            let read: Vec<EventId> = read.into_iter().map(|due| due.event_id).collect();
            assert_eq!(read, planned[..seen], "of which {count} were tried");
        }
        // One that was tried and has moved on to its next time is one ahead.
        let tried = planned.iter().copied().collect();
        assert_eq!(read_ahead(&mut conn, (NOW, UNTIL), &tried, 2).await?.len(), 6);
        // All of them are due still, and there is nothing behind them.
        assert_eq!(read_ahead(&mut conn, (UNTIL, UNTIL), &tried, 2).await?.len(), planned.len());
        Ok(())
    }
}
