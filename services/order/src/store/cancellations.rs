//! The table `cancelled_events`, and the pages of a walk through the orders of one event.
//!
//! `next_walk_us` is the end of the lease of a walk, and its fencing token: each holder sets another one, and its
//! writes are conditional on it. The checkpoint of a walk is written under the same token, so the next holder resumes
//! there.

use crate::domain::{Cancellation, Progress, StateName, Tally};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{EventId, OrderId, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A cancellation whose orders are due for a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueWalk {
    pub event: EventId,
    pub refund_paid: bool,
    /// When the newest message was applied.
    pub received_at: Timestamp,
    /// When an order last left a terminal state; when the newest message was applied if that is later, or none has.
    pub reopened_at: Timestamp,
    /// Whether an earlier walk has counted all orders.
    pub is_counted: bool,
    /// Whether all orders had ended at the last count.
    pub was_settled: bool,
    /// Whether an order was refunded since the previous walk began.
    pub has_changed: bool,
    pub token: Timestamp,
    /// The checkpoint of an unfinished walk, whose lease has expired; `None` for a new walk.
    pub checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub started_at: Timestamp,
    /// The position of the last order that was processed; `None` before the first.
    pub after: Option<(i64, Uuid)>,
    /// The counts of the orders up to that position.
    pub tally: Tally,
}

impl Checkpoint {
    /// Returns the checkpoint of a walk that begins now.
    pub fn start(now: Timestamp) -> Self {
        Self { started_at: now, after: None, tally: Tally::default() }
    }

    fn push_to(&self, token: Timestamp, update: &mut Statement) {
        let Tally { ended, kept, refunding, refunded, remaining } = self.tally;
        update.push(", walk_token_us = ").push_bind(token.micros());
        update.push(", walk_begun_us = ").push_bind(self.started_at.micros());
        update.push(", walk_arrival = ").push_bind(self.after.map(|(arrival, _)| arrival));
        update.push(", walk_order_id = ").push_bind(self.after.map(|(_, id)| id));
        update.push(", walk_ended_orders = ").push_bind(ended);
        update.push(", walk_kept_orders = ").push_bind(kept);
        update.push(", walk_refunding_orders = ").push_bind(refunding);
        update.push(", walk_refunded_orders = ").push_bind(refunded);
        update.push(", walk_remaining_orders = ").push_bind(remaining);
    }
}

/// A change of the lease of a walk.
#[derive(Debug, Clone, Copy)]
pub enum WalkUpdate {
    /// The walk begins, leased until this time.
    Start(Timestamp),
    /// The walk continues, leased until this time.
    Continue(Timestamp),
    /// The walk has ended, and the next one is due at `next`; at `if_changed` if an order was refunded since this one
    /// began; and at once if an order has left a terminal state.
    Finish { now: Timestamp, next: Option<Timestamp>, if_changed: Option<Timestamp> },
}

impl WalkUpdate {
    /// Returns the new fencing token; `None` once the walk has ended.
    pub fn token(self) -> Option<Timestamp> {
        match self {
            Self::Start(until) | Self::Continue(until) => Some(until),
            Self::Finish { .. } => None,
        }
    }

    fn push_to(self, update: &mut Statement) {
        match self {
            Self::Start(until) | Self::Continue(until) => {
                update.push("next_walk_us = ").push_bind(until.micros());
                update.push(", walked_until_us = ").push_bind(until.micros());
                if matches!(self, Self::Start(_)) {
                    update.push(", is_reopened = FALSE, has_changed = FALSE");
                }
            }
            Self::Finish { now, next, if_changed } => {
                update.push("next_walk_us = IF(is_reopened, ").push_bind(now.micros());
                update.push(", IF(has_changed, ").push_bind(if_changed.map(Timestamp::micros)).push(", ");
                update.push_bind(next.map(Timestamp::micros));
                update.push(")), walked_until_us = NULL, walk_token_us = NULL");
            }
        }
    }
}

/// The counts of a walk, to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    pub tally: Tally,
    /// When they were taken.
    pub at: Timestamp,
    /// Whether they cover all orders of the event.
    pub is_whole: bool,
    /// Whether all orders have ended.
    pub is_settled: bool,
}

/// An order of a walk, and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkedOrder {
    /// Its number of arrival, and its id.
    pub position: (i64, Uuid),
    /// Its state; `None` if this version does not know it.
    pub state: Option<StateName>,
}

impl WalkedOrder {
    pub fn order(&self) -> OrderId {
        OrderId::from_uuid(self.position.1)
    }
}

#[derive(FromRow)]
struct DueRow {
    event_id: Uuid,
    refund_paid_orders: bool,
    received_us: i64,
    reopened_us: Option<i64>,
    is_whole: bool,
    settled_us: Option<i64>,
    has_changed: bool,
    next_walk_us: i64,
    walk_token_us: Option<i64>,
    walk_begun_us: Option<i64>,
    walk_arrival: Option<i64>,
    walk_order_id: Option<Uuid>,
    walk_ended_orders: i32,
    walk_kept_orders: i32,
    walk_refunding_orders: i32,
    walk_refunded_orders: i32,
    walk_remaining_orders: i32,
}

#[derive(FromRow)]
struct ProgressRow {
    event_version: i64,
    refund_paid_orders: bool,
    cancel_us: i64,
    ended_orders: i32,
    kept_orders: i32,
    refunding_orders: i32,
    refunded_orders: i32,
    remaining_orders: i32,
    counted_us: Option<i64>,
    settled_us: Option<i64>,
}

/// Upserts cancellations, and makes a walk through their orders due at once. Of several of one event the newest version
/// wins; a repeat changes nothing.
pub async fn insert(conn: &mut MySqlConnection, cancellations: &[Cancellation], now: Timestamp) -> Result<(), DbError> {
    if cancellations.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&Cancellation> = cancellations.iter().collect();
    // In key order, as every transaction locks these rows.
    sorted.sort_by_key(|cancellation| (cancellation.event, cancellation.event_version));
    let mut insert = Statement::new(
        "INSERT INTO cancelled_events (event_id, event_version, refund_paid_orders, cancel_us, received_us, \
         next_walk_us) ",
    );
    insert.push_values(sorted, |mut row, cancellation| {
        row.push_bind(cancellation.event.uuid())
            .push_bind(cancellation.event_version)
            .push_bind(i32::from(cancellation.refund_paid))
            .push_bind(cancellation.cancel_time.micros())
            .push_bind(now.micros())
            .push_bind(now.micros());
    });
    // The version comes last: assignments run from left to right, and the others compare with the old one.
    insert.push(
        " ON DUPLICATE KEY UPDATE \
         refund_paid_orders = IF(VALUES(event_version) > event_version, VALUES(refund_paid_orders), refund_paid_orders), \
         received_us = IF(VALUES(event_version) > event_version, VALUES(received_us), received_us), \
         next_walk_us = IF(VALUES(event_version) > event_version, VALUES(next_walk_us), next_walk_us), \
         is_whole = IF(VALUES(event_version) > event_version, FALSE, is_whole), \
         settled_us = IF(VALUES(event_version) > event_version, NULL, settled_us), \
         event_version = GREATEST(VALUES(event_version), event_version)",
    );
    insert.execute(conn).await?;
    Ok(())
}

/// Returns those of these events whose cancellation is known.
pub async fn known(conn: &mut MySqlConnection, events: &BTreeSet<EventId>) -> Result<BTreeSet<EventId>, DbError> {
    if events.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut select = Statement::new("SELECT event_id FROM cancelled_events WHERE event_id IN ");
    select.push_list(events.iter().map(EventId::uuid));
    let rows: Vec<(Uuid,)> = select.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id,)| EventId::from_uuid(id)).collect())
}

/// Adds the statement that locks the events of [`push_reopen`] and of [`push_changed`], which follow, in the order of
/// their ids. Each of the two locks its own in that order, but the second may go back to one before those of the first.
/// Adds none if the first of them to lock any locks all.
pub fn push_lock(statements: &mut Statements, reopened: &BTreeSet<EventId>, changed: &BTreeSet<EventId>) {
    if reopened.is_empty() || changed.is_subset(reopened) {
        return;
    }
    let mut select = Statement::new("SELECT event_id FROM cancelled_events FORCE INDEX (PRIMARY) WHERE event_id IN ");
    select.push_list(reopened.union(changed).map(EventId::uuid));
    select.push(" ORDER BY event_id FOR UPDATE");
    statements.push(select);
}

/// Adds the statement that makes a walk due for those of these events that were cancelled: at once, or after a walk
/// under way. To restart that one would keep it from ever ending while orders keep leaving terminal states.
pub fn push_reopen(statements: &mut Statements, events: &BTreeSet<EventId>, now: Timestamp) {
    if events.is_empty() {
        return;
    }
    let mut update =
        Statement::new("UPDATE cancelled_events SET settled_us = NULL, is_reopened = TRUE, reopened_us = ");
    update.push_bind(now.micros());
    update.push(", next_walk_us = IF(walked_until_us = next_walk_us, next_walk_us, ");
    update.push_bind(now.micros()).push(") WHERE event_id IN ");
    update.push_list(events.iter().map(EventId::uuid));
    statements.push(update);
}

/// Adds the statement that makes a walk due by `latest` for those of these events that were cancelled, since an order
/// was refunded. It changes a row once a walk, however many orders are refunded.
pub fn push_changed(statements: &mut Statements, events: &BTreeSet<EventId>, latest: Timestamp) {
    if events.is_empty() {
        return;
    }
    let mut update = Statement::new(
        "UPDATE cancelled_events SET has_changed = TRUE, \
         next_walk_us = IF(walked_until_us = next_walk_us, next_walk_us, LEAST(COALESCE(next_walk_us, ",
    );
    update.push_bind(latest.micros()).push("), ").push_bind(latest.micros());
    update.push(")) WHERE has_changed = FALSE AND event_id IN ");
    update.push_list(events.iter().map(EventId::uuid));
    statements.push(update);
}

/// Returns the cancellation whose walk is most overdue.
pub async fn due(conn: &mut MySqlConnection, now: Timestamp) -> Result<Option<DueWalk>, DbError> {
    let due: Option<DueRow> = sqlx::query_as(
        "SELECT event_id, refund_paid_orders, received_us, reopened_us, is_whole, settled_us, has_changed, \
         next_walk_us, walk_token_us, walk_begun_us, walk_arrival, walk_order_id, walk_ended_orders, \
         walk_kept_orders, walk_refunding_orders, walk_refunded_orders, walk_remaining_orders FROM cancelled_events \
         WHERE next_walk_us <= ? ORDER BY next_walk_us LIMIT 1",
    )
    .bind(now.micros())
    .fetch_optional(conn)
    .await?;
    Ok(due.map(DueRow::due_walk))
}

/// Updates the lease of a walk, its checkpoint and, if there is one, the count. Returns whether the caller still had
/// the lease; without it nothing is written.
pub async fn save_walk(
    conn: &mut MySqlConnection,
    walk: &DueWalk,
    lease: WalkUpdate,
    checkpoint: Checkpoint,
    count: Option<Count>,
) -> Result<bool, DbError> {
    let mut update = Statement::new("UPDATE cancelled_events SET ");
    lease.push_to(&mut update);
    if let Some(token) = lease.token() {
        checkpoint.push_to(token, &mut update);
    }
    if let Some(Count { tally, at, is_whole, is_settled }) = count {
        update.push(", ended_orders = ").push_bind(tally.ended);
        update.push(", kept_orders = ").push_bind(tally.kept);
        update.push(", refunding_orders = ").push_bind(tally.refunding);
        update.push(", refunded_orders = ").push_bind(tally.refunded);
        update.push(", remaining_orders = ").push_bind(tally.remaining);
        update.push(", counted_us = ").push_bind(at.micros());
        update.push(", is_whole = ").push_bind(i32::from(is_whole));
        // An earlier time of settlement is kept, unless an order has left a terminal state since.
        let settled_us = is_settled.then(|| at.micros());
        update.push(", settled_us = IF(is_reopened OR ").push_bind(settled_us);
        update.push(" IS NULL, NULL, COALESCE(settled_us, ");
        update.push_bind(settled_us).push("))");
    }
    update.push(" WHERE event_id = ").push_bind(walk.event.uuid());
    update.push(" AND next_walk_us = ").push_bind(walk.token.micros());
    Ok(update.execute(conn).await? > 0)
}

/// Returns a page of the orders of an event, in their order of arrival, after `after`.
pub async fn walk(
    conn: &mut MySqlConnection,
    event: EventId,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<WalkedOrder>, DbError> {
    let mut select =
        Statement::new("SELECT arrival, id, state FROM orders FORCE INDEX (ix_orders_arrival) WHERE event_id = ");
    select.push_bind(event.uuid());
    if let Some((arrival, id)) = after {
        select.push(" AND arrival >= ").push_bind(arrival);
        select.push(" AND (arrival > ").push_bind(arrival).push(" OR id > ").push_bind(id).push(")");
    }
    select.push(" ORDER BY arrival, id LIMIT ").push_bind(limit);
    let rows: Vec<(i64, Uuid, String)> = select.fetch_all(conn).await?;
    let walked = |(arrival, id, state): (i64, Uuid, String)| WalkedOrder {
        position: (arrival, id),
        state: StateName::parse(&state),
    };
    Ok(rows.into_iter().map(walked).collect())
}

/// Returns the progress of ending the orders of a cancelled event; `None` if no cancellation of it is known.
pub async fn progress(conn: &mut MySqlConnection, event: EventId) -> Result<Option<Progress>, DbError> {
    let row: Option<ProgressRow> = sqlx::query_as(
        "SELECT event_version, refund_paid_orders, cancel_us, ended_orders, kept_orders, refunding_orders, \
         refunded_orders, remaining_orders, counted_us, settled_us FROM cancelled_events WHERE event_id = ?",
    )
    .bind(event.uuid())
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.progress(event)))
}

impl DueRow {
    fn due_walk(self) -> DueWalk {
        let received_at = Timestamp::from_micros(self.received_us);
        DueWalk {
            event: EventId::from_uuid(self.event_id),
            refund_paid: self.refund_paid_orders,
            received_at,
            reopened_at: self.reopened_us.map_or(received_at, |at| received_at.max(Timestamp::from_micros(at))),
            is_counted: self.is_whole,
            was_settled: self.settled_us.is_some(),
            has_changed: self.has_changed,
            token: Timestamp::from_micros(self.next_walk_us),
            checkpoint: self.checkpoint(),
        }
    }

    /// A checkpoint under another token belongs to a walk that has ended.
    fn checkpoint(&self) -> Option<Checkpoint> {
        let begun_us = self.walk_begun_us.filter(|_| self.walk_token_us == Some(self.next_walk_us))?;
        let tally = Tally {
            ended: self.walk_ended_orders,
            kept: self.walk_kept_orders,
            refunding: self.walk_refunding_orders,
            refunded: self.walk_refunded_orders,
            remaining: self.walk_remaining_orders,
        };
        let after = self.walk_arrival.zip(self.walk_order_id);
        Some(Checkpoint { started_at: Timestamp::from_micros(begun_us), after, tally })
    }
}

impl ProgressRow {
    fn progress(self, event: EventId) -> Progress {
        Progress {
            cancellation: Cancellation {
                event,
                event_version: self.event_version,
                refund_paid: self.refund_paid_orders,
                cancel_time: Timestamp::from_micros(self.cancel_us),
            },
            tally: Tally {
                ended: self.ended_orders,
                kept: self.kept_orders,
                refunding: self.refunding_orders,
                refunded: self.refunded_orders,
                remaining: self.remaining_orders,
            },
            count_time: self.counted_us.map(Timestamp::from_micros),
            settle_time: self.settled_us.map(Timestamp::from_micros),
        }
    }
}
