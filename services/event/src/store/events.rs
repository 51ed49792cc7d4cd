//! The table `events`.

use crate::{
    domain::{Due, Event, Item, NewEvent, PaidOrders, Schedule, State, Times},
    store::items,
};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{Answers, DbError, Place, Statement, Statements, ensure_rows};
use stampede_vocab::{EventId, Fingerprint, Timestamp};
use std::time::Instant;
use uuid::Uuid;

/// The columns of a [`ScheduleRow`].
const SCHEDULE: &str = "id, state, opens_at_us, closes_at_us, opened_at_us, closed_at_us, closed_before_cancel_us, \
                        refund_paid_orders, version, updated_us";

/// The states that this release knows.
const STATES: [&str; 4] = ["SCHEDULED", "OPEN", "CLOSED", "CANCELLED"];

/// The condition for events that time changes. One in a state of a newer release is left to that release.
const IS_TIMED: &str = "state IN ('SCHEDULED', 'OPEN')";

/// An event as it was read. One that cannot be read fails alone.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: EventId,
    pub created_at: Timestamp,
    /// The event, or why it cannot be read.
    pub event: Result<Event, DbError>,
}

/// A schedule as it was read, or why it cannot be.
pub type StoredSchedule = Result<Schedule, DbError>;

#[derive(FromRow)]
struct ScheduleRow {
    id: Uuid,
    state: String,
    opens_at_us: i64,
    closes_at_us: i64,
    opened_at_us: Option<i64>,
    /// When it was cancelled, or else when it closed.
    closed_at_us: Option<i64>,
    closed_before_cancel_us: Option<i64>,
    refund_paid_orders: bool,
    version: i64,
    updated_us: i64,
}

#[derive(FromRow)]
struct EventRow {
    #[sqlx(flatten)]
    schedule: ScheduleRow,
    name: String,
    created_us: i64,
}

#[derive(FromRow)]
struct DueRow {
    #[sqlx(flatten)]
    schedule: ScheduleRow,
    due_at_us: i64,
}

/// Inserts a new event with its items. Fails with a unique violation if the request was stored before.
pub async fn insert(conn: &mut MySqlConnection, new: &NewEvent, event: &Event) -> Result<(), DbError> {
    let schedule = &event.schedule;
    sqlx::query(
        "INSERT INTO events (id, creator_id, request_id, request_fingerprint, name, state, opens_at_us, closes_at_us, \
         due_at_us, version, created_us, updated_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(event.id().uuid())
    .bind(new.creator.uuid())
    .bind(new.request_id.as_str())
    .bind(new.fingerprint.as_bytes())
    .bind(&event.name)
    .bind(schedule.state.as_str())
    .bind(schedule.times.open_time().micros())
    .bind(schedule.times.close_time().micros())
    .bind(schedule.due_at().map(Timestamp::micros))
    .bind(schedule.version)
    .bind(event.created_at.micros())
    .bind(schedule.updated_at.micros())
    .execute(&mut *conn)
    .await?;
    items::insert(conn, event.id(), &event.items).await
}

/// Returns the fingerprint of the request that created the event; `None` if there is no such event.
pub async fn fingerprint(conn: &mut MySqlConnection, id: EventId) -> Result<Option<Fingerprint>, DbError> {
    let stored: Option<Vec<u8>> = sqlx::query_scalar("SELECT request_fingerprint FROM events WHERE id = ?")
        .bind(id.uuid())
        .fetch_optional(conn)
        .await?;
    let Some(bytes) = stored else { return Ok(None) };
    let fingerprint = Fingerprint::parse(&bytes);
    fingerprint.map(Some).map_err(|error| DbError::inconsistent(format!("{id}: {error}")))
}

/// Returns the versions of those of these events that exist.
pub async fn versions(conn: &mut MySqlConnection, ids: &[EventId]) -> Result<Vec<(EventId, i64)>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Statement::new("SELECT id, version FROM events WHERE id IN ");
    query.push_list(ids.iter().map(EventId::uuid));
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, version)| (EventId::from_uuid(id), version)).collect())
}

/// Returns the event of this id with its items; `None` if there is none.
pub async fn find(conn: &mut MySqlConnection, id: EventId) -> Result<Option<Event>, DbError> {
    load(conn, &[id]).await?.pop().map(|stored| stored.event).transpose()
}

/// Returns the events of these ids that exist, with their items, in no order.
pub async fn load(conn: &mut MySqlConnection, ids: &[EventId]) -> Result<Vec<Stored>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = select(", name, created_us");
    query.push(" WHERE id IN ");
    query.push_list(ids.iter().map(EventId::uuid));
    let rows = query.fetch_all(&mut *conn).await?;
    with_items(conn, rows).await
}

/// Returns up to `limit` events older than `after` (a creation time and an id), newest first.
pub async fn page(
    conn: &mut MySqlConnection,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = select(", name, created_us");
    if let Some((created_at, id)) = after {
        // The first half is a range of the index; the second separates events of the same microsecond.
        query.push(" WHERE created_us <= ").push_bind(created_at.micros());
        query.push(" AND (created_us < ").push_bind(created_at.micros());
        query.push(" OR id < ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_us DESC, id DESC LIMIT ").push_bind(limit);
    let rows = query.fetch_all(&mut *conn).await?;
    with_items(conn, rows).await
}

/// Locks the events of these ids that exist. Locks in id order, so that two transactions with the same events wait for
/// each other and do not deadlock.
pub async fn lock(conn: &mut MySqlConnection, ids: &[EventId]) -> Result<Vec<Schedule>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = select("");
    query.push(" WHERE id IN ");
    query.push_list(ids.iter().map(EventId::uuid));
    query.push(" ORDER BY id FOR UPDATE");
    let rows: Vec<ScheduleRow> = query.fetch_all(conn).await?;
    rows.into_iter().map(ScheduleRow::schedule).collect()
}

/// Adds the statement that locks the first `limit` events whose next transition is due at `now`, the earliest first,
/// without these. It skips those that another transaction has locked. [`locked`] reads its result.
pub fn push_lock_due(statements: &mut Statements, now: Timestamp, without: &[EventId], limit: u32) -> Place {
    let mut query = Statement::concat(["SELECT ", SCHEDULE, " FROM events FORCE INDEX (ix_events_due)"]);
    query.push(" WHERE ").push(IS_TIMED).push(" AND due_at_us <= ").push_bind(now.micros());
    if !without.is_empty() {
        query.push(" AND id NOT IN ");
        query.push_list(without.iter().map(EventId::uuid));
    }
    query.push(" ORDER BY due_at_us, id LIMIT ").push_bind(limit).push(" FOR UPDATE SKIP LOCKED");
    statements.push(query)
}

/// Returns the schedules that such a statement has locked, with an error for a row that cannot be read.
pub fn locked(answers: &Answers, place: Place) -> Result<Vec<(EventId, StoredSchedule)>, DbError> {
    let rows: Vec<ScheduleRow> = answers.rows(Some(place))?;
    Ok(rows.into_iter().map(|row| (EventId::from_uuid(row.id), row.schedule())).collect())
}

/// Returns the next `limit` events after `after` whose next transition is due before `until`, the earliest first.
pub async fn next_due(
    conn: &mut MySqlConnection,
    after: Option<Due>,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<Due>, DbError> {
    let mut query = Statement::new("SELECT id, due_at_us FROM events");
    push_due_page(&mut query, after, until, limit);
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    let due = |(id, due_at_us)| Due { event_id: EventId::from_uuid(id), due_at: Timestamp::from_micros(due_at_us) };
    Ok(rows.into_iter().map(due).collect())
}

/// Returns the next `limit` schedules after `after` whose next transition is due before `until`, the earliest first,
/// with an error for a row that cannot be read.
pub async fn due_before(
    conn: &mut MySqlConnection,
    after: Option<Due>,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<(Due, StoredSchedule)>, DbError> {
    let mut query = select(", due_at_us");
    push_due_page(&mut query, after, until, limit);
    let rows: Vec<DueRow> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.due(), row.schedule.schedule())).collect())
}

/// Adds the condition and the order of a page of the events that are due before `until`, after the cursor `after`.
fn push_due_page(query: &mut Statement, after: Option<Due>, until: Timestamp, limit: u32) {
    query.push(" WHERE ").push(IS_TIMED).push(" AND due_at_us < ").push_bind(until.micros());
    if let Some(Due { event_id, due_at }) = after {
        query.push(" AND due_at_us >= ").push_bind(due_at.micros());
        query.push(" AND (due_at_us > ").push_bind(due_at.micros());
        query.push(" OR id > ").push_bind(event_id.uuid()).push(")");
    }
    query.push(" ORDER BY due_at_us, id LIMIT ").push_bind(limit);
}

/// Adds the statement that opens these locked events at `now`. It fails unless each is SCHEDULED and due, so that
/// nothing is published.
pub fn push_open(writes: &mut Statements, opened: &[Schedule], now: Timestamp) {
    if opened.is_empty() {
        return;
    }
    let mut query = Statement::new("UPDATE events FORCE INDEX (PRIMARY) SET state = 'OPEN', due_at_us = closes_at_us");
    query.push(", version = version + 1, opened_at_us = ").push_bind(now.micros());
    query.push(", updated_us = ").push_bind(now.micros());
    query.push(" WHERE state = 'SCHEDULED' AND opens_at_us <= ").push_bind(now.micros()).push(" AND id IN ");
    query.push_list(opened.iter().map(|schedule| schedule.event_id.uuid()));
    writes.push_expecting(query, "opening", opened.len());
}

/// Adds the statement that closes these locked events at `now`. It fails unless each is OPEN and due, so that nothing
/// is published.
pub fn push_close(writes: &mut Statements, closed: &[Schedule], now: Timestamp) {
    if closed.is_empty() {
        return;
    }
    let mut query = Statement::new("UPDATE events FORCE INDEX (PRIMARY) SET state = 'CLOSED', due_at_us = NULL");
    query.push(", version = version + 1, closed_at_us = ").push_bind(now.micros());
    query.push(", updated_us = ").push_bind(now.micros());
    query.push(" WHERE state = 'OPEN' AND closes_at_us <= ").push_bind(now.micros()).push(" AND id IN ");
    query.push_list(closed.iter().map(|schedule| schedule.event_id.uuid()));
    writes.push_expecting(query, "closing", closed.len());
}

/// Records that the opening of these events was visible from `committed` on.
pub async fn note_opened(conn: &mut MySqlConnection, ids: &[EventId], committed: Instant) -> Result<(), DbError> {
    note_seen(conn, "opened_seen_us", ids, committed).await
}

/// Records that the closing of these events was visible from `committed` on.
pub async fn note_closed(conn: &mut MySqlConnection, ids: &[EventId], committed: Instant) -> Result<(), DbError> {
    note_seen(conn, "closed_seen_us", ids, committed).await
}

/// Writes the time by the database's clock, less the time since the commit. Uses the primary key, so that it locks no
/// other row: the next transitions skip locked rows.
async fn note_seen(
    conn: &mut MySqlConnection,
    column: &'static str,
    ids: &[EventId],
    committed: Instant,
) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut query = Statement::concat(["UPDATE events FORCE INDEX (PRIMARY) SET ", column]);
    query.push(" = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - ");
    query.push_bind(i64::try_from(committed.elapsed().as_micros()).unwrap_or(i64::MAX));
    query.push(" WHERE ").push(column).push(" IS NULL AND id IN ");
    query.push_list(ids.iter().map(EventId::uuid));
    query.execute(conn).await.map(drop)
}

/// Replaces the locked `before` by `after`. Fails if the row differs from `before`.
pub async fn replace(conn: &mut MySqlConnection, before: &Schedule, after: &Schedule) -> Result<(), DbError> {
    let (closed, cancelled) = (after.state.actual_close_time(), after.state.cancel_time());
    let changed = sqlx::query(
        "UPDATE events SET state = ?, opens_at_us = ?, closes_at_us = ?, opened_at_us = ?, closed_at_us = ?, \
         closed_before_cancel_us = ?, refund_paid_orders = ?, due_at_us = ?, version = ?, updated_us = ? \
         WHERE id = ? AND state = ? AND version = ?",
    )
    .bind(after.state.as_str())
    .bind(after.times.open_time().micros())
    .bind(after.times.close_time().micros())
    .bind(after.state.actual_open_time().map(Timestamp::micros))
    .bind(cancelled.or(closed).map(Timestamp::micros))
    .bind(cancelled.and(closed).map(Timestamp::micros))
    .bind(after.state.paid_orders() == Some(PaidOrders::Refund))
    .bind(after.due_at().map(Timestamp::micros))
    .bind(after.version)
    .bind(after.updated_at.micros())
    .bind(before.event_id.uuid())
    .bind(before.state.as_str())
    .bind(before.version)
    .execute(conn)
    .await?
    .rows_affected();
    ensure_rows("replacing a schedule", changed, 1)
}

/// Returns the SELECT of [`ScheduleRow`]s with these additional columns.
fn select(more_columns: &'static str) -> Statement {
    let mut select = Statement::new("SELECT ");
    select.push(SCHEDULE).push(more_columns).push(" FROM events");
    select
}

async fn with_items(conn: &mut MySqlConnection, rows: Vec<EventRow>) -> Result<Vec<Stored>, DbError> {
    let ids: Vec<_> = rows.iter().map(|row| EventId::from_uuid(row.schedule.id)).collect();
    let mut items = items::load(conn, &ids).await?;
    let stored = rows.into_iter().map(|row| {
        let (id, created_at) = (EventId::from_uuid(row.schedule.id), Timestamp::from_micros(row.created_us));
        let items = items.remove(&id).unwrap_or_else(|| Ok(Vec::new()));
        Stored { id, created_at, event: row.event(items) }
    });
    Ok(stored.collect())
}

impl EventRow {
    fn event(self, items: Result<Vec<Item>, DbError>) -> Result<Event, DbError> {
        let created_at = Timestamp::from_micros(self.created_us);
        // First: an event in a state of a newer release may have items that are odd to this one.
        let schedule = self.schedule.schedule()?;
        Ok(Event { name: self.name, schedule, items: items?, created_at })
    }
}

impl DueRow {
    fn due(&self) -> Due {
        Due { event_id: EventId::from_uuid(self.schedule.id), due_at: Timestamp::from_micros(self.due_at_us) }
    }
}

impl ScheduleRow {
    fn schedule(self) -> Result<Schedule, DbError> {
        let event_id = EventId::from_uuid(self.id);
        let state = self.state()?;
        let times = Times::new(Timestamp::from_micros(self.opens_at_us), Timestamp::from_micros(self.closes_at_us))
            .map_err(|error| DbError::inconsistent(format!("{event_id}: {error}")))?;
        let updated_at = Timestamp::from_micros(self.updated_us);
        Ok(Schedule { event_id, times, state, version: self.version, updated_at })
    }

    fn state(&self) -> Result<State, DbError> {
        let actual_open_time = self.opened_at_us.map(Timestamp::from_micros);
        let ended_at = self.closed_at_us.map(Timestamp::from_micros);
        let closed_before = self.closed_before_cancel_us.map(Timestamp::from_micros);
        match (self.state.as_str(), actual_open_time, ended_at, closed_before) {
            ("SCHEDULED", None, None, None) => Ok(State::Scheduled),
            ("OPEN", Some(actual_open_time), None, None) => Ok(State::Open { actual_open_time }),
            ("CLOSED", Some(actual_open_time), Some(actual_close_time), None) => {
                Ok(State::Closed { actual_open_time, actual_close_time })
            }
            // It closes only after it has opened.
            ("CANCELLED", actual_open_time, Some(cancel_time), actual_close_time)
                if actual_open_time.is_some() || actual_close_time.is_none() =>
            {
                let paid_orders = if self.refund_paid_orders { PaidOrders::Refund } else { PaidOrders::Keep };
                Ok(State::Cancelled { actual_open_time, actual_close_time, cancel_time, paid_orders })
            }
            (state, ..) if !STATES.contains(&state) => {
                Err(DbError::newer(format!("{} is {state}", EventId::from_uuid(self.id))))
            }
            (state, actual_open_time, ended_at, closed_before) => Err(DbError::inconsistent(format!(
                "{} is {state}, opened at {actual_open_time:?}, ended at {ended_at:?}, and closed before that at \
                 {closed_before:?}",
                EventId::from_uuid(self.id)
            ))),
        }
    }
}
