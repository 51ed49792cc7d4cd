//! The table `cancelled_events`, and the orders of one event for a walk through them.
//!
//! `next_walk_us` is the token of a walk: whoever sets it has the walk, and writes nothing once somebody else has set
//! it. How far the walk is, is written under that token, so whoever takes it over goes on there.

use crate::domain::{Cancellation, Progress, StateName, Tally};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{EventId, OrderId, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A cancellation whose orders are to be walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueWalk {
    pub event: EventId,
    /// Whether orders that are paid are refunded.
    pub refund_paid: bool,
    /// When the newest message was applied.
    pub received_at: Timestamp,
    /// When an order that had come to its end began again last; else when the newest message was applied.
    pub begun_again_at: Timestamp,
    /// Whether all orders were counted before.
    pub is_counted: bool,
    /// Whether all had ended when they were counted last.
    pub was_settled: bool,
    /// Whether the money of an order has come back since the walk before began.
    pub has_changed: bool,
    pub token: Timestamp,
    /// How far a walk is that somebody has begun and does not go on with; `None` if it is to begin.
    pub reached: Option<Reached>,
}

/// How far a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// When it began.
    pub begun_at: Timestamp,
    /// The place of the last order that it has treated; `None` before the first.
    pub after: Option<(i64, Uuid)>,
    /// The orders up to there.
    pub tally: Tally,
}

impl Reached {
    /// A walk that begins now.
    pub fn start(now: Timestamp) -> Self {
        Self { begun_at: now, after: None, tally: Tally::default() }
    }

    fn push_to(&self, token: Timestamp, update: &mut Statement) {
        let Tally { ended, kept, refunding, refunded, remaining } = self.tally;
        update.push(", walk_token_us = ").push_bind(token.micros());
        update.push(", walk_begun_us = ").push_bind(self.begun_at.micros());
        update.push(", walk_arrival = ").push_bind(self.after.map(|(arrival, _)| arrival));
        update.push(", walk_order_id = ").push_bind(self.after.map(|(_, id)| id));
        update.push(", walk_ended_orders = ").push_bind(ended);
        update.push(", walk_kept_orders = ").push_bind(kept);
        update.push(", walk_refunding_orders = ").push_bind(refunding);
        update.push(", walk_refunded_orders = ").push_bind(refunded);
        update.push(", walk_remaining_orders = ").push_bind(remaining);
    }
}

/// The outcome of a walk.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    /// It begins, and has the orders for itself until then.
    Begins(Timestamp),
    /// It goes on, and has them until then.
    GoesOn(Timestamp),
    /// It has ended. The next one is due then; earlier if the money of an order has come back since this one began; and
    /// at once if an order has begun again.
    Ends { now: Timestamp, next: Option<Timestamp>, if_changed: Option<Timestamp> },
}

impl Turn {
    /// The token from now on; `None` if the walk has none any more.
    pub fn token(self) -> Option<Timestamp> {
        match self {
            Self::Begins(until) | Self::GoesOn(until) => Some(until),
            Self::Ends { .. } => None,
        }
    }

    fn push_to(self, update: &mut Statement) {
        match self {
            Self::Begins(until) | Self::GoesOn(until) => {
                update.push("next_walk_us = ").push_bind(until.micros());
                update.push(", walked_until_us = ").push_bind(until.micros());
                if matches!(self, Self::Begins(_)) {
                    update.push(", is_reopened = FALSE, has_changed = FALSE");
                }
            }
            Self::Ends { now, next, if_changed } => {
                update.push("next_walk_us = IF(is_reopened, ").push_bind(now.micros());
                update.push(", IF(has_changed, ").push_bind(if_changed.map(Timestamp::micros)).push(", ");
                update.push_bind(next.map(Timestamp::micros));
                update.push(")), walked_until_us = NULL, walk_token_us = NULL");
            }
        }
    }
}

/// The counts of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    pub tally: Tally,
    /// When.
    pub at: Timestamp,
    /// Whether of all orders.
    pub is_whole: bool,
    /// Whether all have ended.
    pub is_settled: bool,
}

/// An order of a walk, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Its place of arrival, and its id.
    pub place: (i64, Uuid),
    /// Its state; `None` for one that this version does not know.
    pub state: Option<StateName>,
}

impl Walked {
    pub fn order(&self) -> OrderId {
        OrderId::from_uuid(self.place.1)
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

/// Notes cancellations, and that their orders are to be walked through at once. Of two of one event the newer stays; a
/// repeat changes nothing.
pub async fn insert(conn: &mut MySqlConnection, cancellations: &[Cancellation], now: Timestamp) -> Result<(), DbError> {
    if cancellations.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&Cancellation> = cancellations.iter().collect();
    // The order of the keys, as everybody locks them.
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
    // The version comes last, since the others compare with it and are set from left to right.
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

/// Returns those of these events of which a cancellation is known.
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

/// Adds the statement that lets the orders of those of these events that were cancelled be walked through again: at
/// once, or after the walk that is under way, which would else never come to its end where orders begin again all the
/// time.
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

/// Adds the statement that lets the orders of those of these events that were cancelled be walked through by `latest`,
/// since money has come back. It changes a row once for each walk, however many orders there are.
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

/// Returns the cancellation whose walk is due the longest.
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

/// Writes what becomes of a walk, how far it is, and what it has counted of all orders. Returns whether it was still
/// the caller's; nothing is written if it was not.
pub async fn pass_on(
    conn: &mut MySqlConnection,
    walk: &DueWalk,
    turn: Turn,
    reached: Reached,
    count: Option<Count>,
) -> Result<bool, DbError> {
    let mut update = Statement::new("UPDATE cancelled_events SET ");
    turn.push_to(&mut update);
    if let Some(token) = turn.token() {
        reached.push_to(token, &mut update);
    }
    if let Some(Count { tally, at, is_whole, is_settled }) = count {
        update.push(", ended_orders = ").push_bind(tally.ended);
        update.push(", kept_orders = ").push_bind(tally.kept);
        update.push(", refunding_orders = ").push_bind(tally.refunding);
        update.push(", refunded_orders = ").push_bind(tally.refunded);
        update.push(", remaining_orders = ").push_bind(tally.remaining);
        update.push(", counted_us = ").push_bind(at.micros());
        update.push(", is_whole = ").push_bind(i32::from(is_whole));
        // An end that was seen before stays when it was, unless something has begun again.
        let settled_us = is_settled.then(|| at.micros());
        update.push(", settled_us = IF(is_reopened OR ").push_bind(settled_us);
        update.push(" IS NULL, NULL, COALESCE(settled_us, ");
        update.push_bind(settled_us).push("))");
    }
    update.push(" WHERE event_id = ").push_bind(walk.event.uuid());
    update.push(" AND next_walk_us = ").push_bind(walk.token.micros());
    Ok(update.execute(conn).await? > 0)
}

/// Returns up to `limit` orders of an event in their order of arrival, behind `after`.
pub async fn walk(
    conn: &mut MySqlConnection,
    event: EventId,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Walked>, DbError> {
    let mut select =
        Statement::new("SELECT arrival, id, state FROM orders FORCE INDEX (ix_orders_arrival) WHERE event_id = ");
    select.push_bind(event.uuid());
    if let Some((arrival, id)) = after {
        select.push(" AND arrival >= ").push_bind(arrival);
        select.push(" AND (arrival > ").push_bind(arrival).push(" OR id > ").push_bind(id).push(")");
    }
    select.push(" ORDER BY arrival, id LIMIT ").push_bind(limit);
    let rows: Vec<(i64, Uuid, String)> = select.fetch_all(conn).await?;
    let walked =
        |(arrival, id, state): (i64, Uuid, String)| Walked { place: (arrival, id), state: StateName::parse(&state) };
    Ok(rows.into_iter().map(walked).collect())
}

/// Returns how far the orders of a cancelled event are; `None` if no cancellation of it is known.
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
            begun_again_at: self.reopened_us.map_or(received_at, |at| received_at.max(Timestamp::from_micros(at))),
            is_counted: self.is_whole,
            was_settled: self.settled_us.is_some(),
            has_changed: self.has_changed,
            token: Timestamp::from_micros(self.next_walk_us),
            reached: self.reached(),
        }
    }

    /// What was written under another token is of a walk that is over.
    fn reached(&self) -> Option<Reached> {
        let begun_us = self.walk_begun_us.filter(|_| self.walk_token_us == Some(self.next_walk_us))?;
        let tally = Tally {
            ended: self.walk_ended_orders,
            kept: self.walk_kept_orders,
            refunding: self.walk_refunding_orders,
            refunded: self.walk_refunded_orders,
            remaining: self.walk_remaining_orders,
        };
        let after = self.walk_arrival.zip(self.walk_order_id);
        Some(Reached { begun_at: Timestamp::from_micros(begun_us), after, tally })
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
