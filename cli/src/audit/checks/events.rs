//! Promises 5, 6 and 8: the times of transitions of events, the orders of cancelled ones, the times of orders, and
//! their ranks of arrival.

use super::{
    Check,
    Table::{Ledger, Orders},
};
use crate::audit::{named::Named, sources::Sources, verdict::Audit};
use sqlx::Row;

pub const CHECKS: &[Check] = &[
    Check {
        promise: 6,
        what: "an event opened early",
        over: None,
        sql: "SELECT 'evt' AS kind, id, CONCAT(opens_at_us - opened_at_us, ' us early') AS detail FROM {event}.events WHERE opened_at_us < opens_at_us",
    },
    Check {
        promise: 6,
        what: "an event closed early",
        over: None,
        sql: "SELECT 'evt' AS kind, id, \
              CONCAT(closes_at_us - IF(state = 'CLOSED', closed_at_us, closed_before_cancel_us), ' us early') AS detail \
              FROM {event}.events WHERE IF(state = 'CLOSED', closed_at_us, closed_before_cancel_us) < closes_at_us",
    },
    // Another clock than that of the database decided. Machines on NTP agree well within 20 ms.
    Check {
        promise: 6,
        what: "an event could be seen to turn before its time, by the clock of the database",
        over: None,
        sql: "SELECT 'evt' AS kind, id, CONCAT(opens_at_us - opened_seen_us, ' us early') AS detail FROM {event}.events \
              WHERE opened_seen_us < opens_at_us - 20000 \
              UNION ALL SELECT 'evt' AS kind, id, CONCAT(closes_at_us - closed_seen_us, ' us early') AS detail FROM {event}.events \
              WHERE closed_seen_us < closes_at_us - 20000",
    },
    Check {
        promise: 6,
        what: "an event is over its time and has not moved",
        over: None,
        sql: "SELECT 'evt' AS kind, id, state AS detail FROM {event}.events \
              WHERE due_at_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 1000000",
    },
    Check {
        promise: 6,
        what: "an event in a state that cannot be",
        over: None,
        sql: "SELECT 'evt' AS kind, id, state AS detail FROM {event}.events WHERE state NOT IN ('SCHEDULED', 'OPEN', 'CLOSED', 'CANCELLED') \
              OR (state IN ('SCHEDULED', 'OPEN') AND due_at_us IS NULL) OR (state IN ('OPEN', 'CLOSED') AND opened_at_us IS NULL) \
              OR (state IN ('CLOSED', 'CANCELLED') AND closed_at_us IS NULL) \
              OR (closed_before_cancel_us IS NOT NULL AND (state <> 'CANCELLED' OR opened_at_us IS NULL))",
    },
    Check {
        promise: 6,
        what: "an order of an event that does not exist",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, '' AS detail FROM {order}.orders o \
              LEFT JOIN {event}.events e ON e.id = o.event_id WHERE o.id {page} AND e.id IS NULL",
    },
    Check {
        promise: 6,
        what: "an order was taken before the event opened",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(e.opens_at_us - o.created_us, ' us early') AS detail FROM {order}.orders o \
              STRAIGHT_JOIN {event}.events e ON e.id = o.event_id WHERE o.id {page} AND o.created_us < e.opens_at_us",
    },
    // The units are granted before the close, and their commit is decided 3.5 s after it at the latest (`COMMIT_GRACE`
    // of inventory). A repeat of the request may write the order later, until the sweep releases them (15 s, and a
    // second until its next round) and 10 s of the call itself. A process that is frozen between its decision and its
    // COMMIT keeps the rows from the sweep, and may still commit, until the database ends its session after 8 s: 37.5 s
    // in all. An event may be cancelled after it has closed: one that was cancelled before is left to the next check.
    Check {
        promise: 6,
        what: "an order was taken over 40 s after the event closed",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(o.created_us - e.closes_at_us, ' us late') AS detail FROM {order}.orders o \
              STRAIGHT_JOIN {event}.events e ON e.id = o.event_id WHERE o.id {page} AND o.created_us > e.closes_at_us + 40000000 \
              AND (e.state <> 'CANCELLED' OR e.closed_at_us >= e.closes_at_us)",
    },
    // The event service notifies inventory at once, and inventory grants nothing while it is down. Only an inventory
    // that runs but can be reached neither by RPC nor by Kafka sells for longer, and then the promise is broken.
    Check {
        promise: 6,
        what: "an order was taken over 40 s after the event was cancelled",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(o.created_us - e.closed_at_us, ' us late') AS detail FROM {order}.orders o \
              STRAIGHT_JOIN {event}.events e ON e.id = o.event_id WHERE o.id {page} AND e.state = 'CANCELLED' AND o.created_us > e.closed_at_us + 40000000",
    },
    // Until the end is recorded the orders are still being ended; those that were accepted later are found by the next
    // poll.
    Check {
        promise: 5,
        what: "an order of a cancelled event has not ended with it",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, o.state AS detail FROM {order}.orders o \
              STRAIGHT_JOIN {order}.cancelled_events c ON c.event_id = o.event_id WHERE o.id {page} AND o.created_us < c.settled_us \
              AND (o.state IN ('PENDING', 'AWAITING_PAYMENT', 'PAYING', 'PAID') \
              OR (c.refund_paid_orders AND o.state IN ('FULFILLED', 'REFUNDING')))",
    },
    Check {
        promise: 5,
        what: "the orders of a cancelled event are to be treated otherwise than the event says",
        over: None,
        sql: "SELECT 'evt' AS kind, e.id AS id, CONCAT('version ', e.version, ', order has ', c.event_version) AS detail \
              FROM {event}.events e STRAIGHT_JOIN {order}.cancelled_events c ON c.event_id = e.id \
              WHERE e.state <> 'CANCELLED' OR e.refund_paid_orders < c.refund_paid_orders \
              OR (e.version = c.event_version AND e.refund_paid_orders <> c.refund_paid_orders)",
    },
    Check {
        promise: 8,
        what: "two orders of one event with one place of arrival",
        over: None,
        sql: "SELECT 'evt' AS kind, event_id AS id, CONCAT('arrival ', arrival, ' ', COUNT(*), ' times') AS detail \
              FROM {order}.orders GROUP BY event_id, arrival HAVING COUNT(*) > 1",
    },
    Check {
        promise: 8,
        what: "two orders of one event with one place of arrival in the ledger",
        over: None,
        sql: "SELECT 'evt' AS kind, l.event_id AS id, CONCAT('arrival ', l.arrival, ' ', COUNT(DISTINCT l.order_id), ' times') AS detail \
              FROM {inventory}.ledger l WHERE l.arrival > 0 AND NOT {void} \
              GROUP BY l.event_id, l.arrival HAVING COUNT(DISTINCT l.order_id) > 1",
    },
    Check {
        promise: 8,
        what: "an order without a place of arrival",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, id, CONCAT('arrival ', arrival) AS detail FROM {order}.orders WHERE id {page} AND arrival < 1",
    },
    Check {
        promise: 8,
        what: "the ledger has another place of arrival than the order",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT('ledger ', l.arrival, ', order ', o.arrival) AS detail \
              FROM {inventory}.ledger l JOIN {order}.orders o ON o.id = l.order_id WHERE l.order_id {page} AND l.arrival <> o.arrival AND NOT {void}",
    },
];

/// Checks that events open and close within `within_ms` of their time (p99), as others can see it: after the commit. A
/// time that had passed before it was set counts from then on. Without a record of the first observation, the time of
/// the transition counts, which is before its commit; the figures have the number of these. Of an event that an
/// earlier release has cancelled after its close, the first observation of the close is all that is left of it.
pub async fn punctuality(sources: &Sources, within_ms: u64, audit: &mut Audit) -> anyhow::Result<()> {
    let late = sources
        .rows(
            "SELECT CAST(COALESCE(opened_seen_us, opened_at_us) - GREATEST(opens_at_us, created_us) AS SIGNED) FROM {event}.events \
             WHERE opened_at_us IS NOT NULL \
             UNION ALL SELECT CAST(COALESCE(closed_seen_us, IF(state = 'CLOSED', closed_at_us, closed_before_cancel_us)) \
             - GREATEST(closes_at_us, created_us) AS SIGNED) \
             FROM {event}.events WHERE state = 'CLOSED' OR COALESCE(closed_before_cancel_us, closed_seen_us) IS NOT NULL",
        )
        .await?;
    let mut late_us = late.iter().map(|row| row.try_get::<i64, _>(0)).collect::<Result<Vec<_>, _>>()?;
    late_us.sort_unstable();
    let Some(&p99_us) = late_us.get((late_us.len() * 99).div_ceil(100).saturating_sub(1)) else { return Ok(()) };
    audit.figure(6, "p99 lateness in us", p99_us);
    let unseen = sources
        .count(
            "SELECT (SELECT COUNT(*) FROM {event}.events WHERE opened_at_us IS NOT NULL AND opened_seen_us IS NULL) \
             + (SELECT COUNT(*) FROM {event}.events WHERE (state = 'CLOSED' OR closed_before_cancel_us IS NOT NULL) \
             AND closed_seen_us IS NULL)",
        )
        .await?;
    if unseen > 0 {
        audit.figure(6, "of them as of before their commit", unseen);
    }
    if p99_us > i64::try_from(within_ms.saturating_mul(1_000)).unwrap_or(i64::MAX) {
        audit.breach(
            6,
            format!("events are later than {within_ms} ms (p99)"),
            Named::from_iter([format!("{p99_us} us")]),
        );
    }
    Ok(())
}
