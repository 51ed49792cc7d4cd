//! The checks that SQL alone can make: each query yields what breaks a promise.

use super::{
    sources::{Found, Sources},
    verdict::{Audit, Number},
};
use anyhow::Context;
use serde::Deserialize;
use sqlx::Row;
use stampede_vocab::{CouponId, OrderId};
use std::{collections::HashSet, path::Path};

/// Something that must not be found.
struct Check {
    promise: Number,
    what: &'static str,
    /// Yields (kind, id, detail) of each breach.
    sql: &'static str,
}

/// Something that is counted, so that the reader sees what was compared.
struct Counted {
    promise: Number,
    name: &'static str,
    sql: &'static str,
}

const COUNTED: &[Counted] = &[
    Counted { promise: 1, name: "units to sell", sql: "SELECT COALESCE(SUM(total_units), 0) FROM {inventory}.stock" },
    Counted {
        promise: 1,
        name: "units committed",
        sql: "SELECT COALESCE(SUM(committed_units), 0) FROM {inventory}.stock",
    },
    Counted {
        promise: 1,
        name: "units in the ledger",
        sql: "SELECT COALESCE(SUM(units), 0) FROM {inventory}.ledger WHERE state = 'COMMITTED'",
    },
    Counted {
        promise: 1,
        name: "gifts committed",
        sql: "SELECT COALESCE(SUM(gift_committed_units), 0) FROM {inventory}.stock",
    },
    Counted { promise: 2, name: "quota", sql: "SELECT COALESCE(SUM(quota), 0) FROM {coupon}.campaigns" },
    Counted { promise: 2, name: "coupons", sql: "SELECT COUNT(*) FROM {coupon}.coupons" },
    Counted {
        promise: 3,
        name: "payments captured",
        sql: "SELECT COUNT(*) FROM {payment}.payments WHERE captured_attempt IS NOT NULL",
    },
    Counted {
        promise: 3,
        name: "minor units captured",
        sql: "SELECT COALESCE(SUM(captured_minor), 0) FROM {payment}.payments",
    },
    Counted {
        promise: 3,
        name: "minor units refunded",
        sql: "SELECT COALESCE(SUM(refunded_minor), 0) FROM {payment}.payments",
    },
    Counted { promise: 5, name: "orders", sql: "SELECT COUNT(*) FROM {order}.orders" },
    Counted { promise: 5, name: "fulfilled", sql: "SELECT COUNT(*) FROM {order}.orders WHERE state = 'FULFILLED'" },
    Counted {
        promise: 5,
        name: "returned",
        sql: "SELECT COUNT(*) FROM {order}.orders WHERE state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED')",
    },
    Counted {
        promise: 5,
        name: "still to be paid",
        sql: "SELECT COUNT(*) FROM {order}.orders WHERE state = 'AWAITING_PAYMENT'",
    },
    Counted { promise: 6, name: "events", sql: "SELECT COUNT(*) FROM {event}.events" },
    Counted { promise: 6, name: "opened", sql: "SELECT COUNT(*) FROM {event}.events WHERE opened_at_us IS NOT NULL" },
    Counted { promise: 8, name: "arrivals", sql: "SELECT COUNT(*) FROM {order}.orders" },
    Counted { promise: 8, name: "ranks", sql: "SELECT COUNT(*) FROM {coupon}.coupons" },
];

const CHECKS: &[Check] = &[
    // 1. Never oversold.
    Check {
        promise: 1,
        what: "more units committed than there are",
        sql: "SELECT 'itm' AS kind, item_id AS id, CONCAT(committed_units, ' of ', total_units) AS detail \
              FROM {inventory}.stock WHERE committed_units > total_units",
    },
    Check {
        promise: 1,
        what: "more gifts committed than there are",
        sql: "SELECT 'itm' AS kind, item_id AS id, CONCAT(gift_committed_units, ' of ', gift_total_units) AS detail \
              FROM {inventory}.stock WHERE gift_committed_units > gift_total_units",
    },
    Check {
        promise: 1,
        what: "the ledger's rows do not add up to what is committed",
        sql: "SELECT 'itm' AS kind, s.item_id AS id, CONCAT('rows ', COALESCE(SUM(l.units), 0), ' and ', COALESCE(SUM(l.gift_units), 0), \
              ' gifts, committed ', s.committed_units, ' and ', s.gift_committed_units) AS detail \
              FROM {inventory}.stock s LEFT JOIN {inventory}.ledger l ON l.item_id = s.item_id AND l.state = 'COMMITTED' \
              GROUP BY s.item_id, s.committed_units, s.gift_committed_units \
              HAVING COALESCE(SUM(l.units), 0) <> s.committed_units OR COALESCE(SUM(l.gift_units), 0) <> s.gift_committed_units",
    },
    Check {
        promise: 1,
        what: "a buyer has more than the limit",
        sql: "SELECT 'itm' AS kind, l.item_id AS id, CONCAT('buyer ', LOWER(HEX(l.user_id)), ' has ', SUM(l.units), ' of ', s.limit_per_buyer) AS detail \
              FROM {inventory}.ledger l JOIN {inventory}.stock s ON s.item_id = l.item_id WHERE l.state = 'COMMITTED' \
              GROUP BY l.item_id, l.user_id, s.limit_per_buyer HAVING SUM(l.units) > s.limit_per_buyer",
    },
    Check {
        promise: 1,
        what: "the stock is not what the event offers",
        sql: "SELECT 'itm' AS kind, i.id AS id, CONCAT('stock ', s.total_units, ', event ', i.total_units) AS detail \
              FROM {event}.items i JOIN {inventory}.stock s ON s.item_id = i.id \
              WHERE s.total_units <> i.total_units OR s.gift_total_units <> i.gift_total_units OR s.limit_per_buyer <> i.limit_per_buyer",
    },
    // 2. Coupons.
    Check {
        promise: 2,
        what: "more coupons than the quota",
        sql: "SELECT 'cmp' AS kind, c.id AS id, CONCAT(COUNT(*), ' of ', c.quota) AS detail FROM {coupon}.campaigns c \
              JOIN {coupon}.coupons p ON p.campaign_id = c.id GROUP BY c.id, c.quota HAVING COUNT(*) > c.quota",
    },
    Check {
        promise: 2,
        what: "a rank outside the quota",
        sql: "SELECT 'cpn' AS kind, p.id AS id, CONCAT('rank ', p.rank_no, ' of ', c.quota) AS detail FROM {coupon}.coupons p \
              JOIN {coupon}.campaigns c ON c.id = p.campaign_id WHERE p.rank_no NOT BETWEEN 1 AND c.quota",
    },
    Check {
        promise: 2,
        what: "a rank given twice",
        sql: "SELECT 'cmp' AS kind, campaign_id AS id, CONCAT('rank ', rank_no, ' ', COUNT(*), ' times') AS detail \
              FROM {coupon}.coupons GROUP BY campaign_id, rank_no HAVING COUNT(*) > 1",
    },
    Check {
        promise: 2,
        what: "two coupons of one campaign for one user",
        sql: "SELECT 'cmp' AS kind, campaign_id AS id, CONCAT('user ', LOWER(HEX(user_id)), ' has ', COUNT(*)) AS detail \
              FROM {coupon}.coupons GROUP BY campaign_id, user_id HAVING COUNT(*) > 1",
    },
    // 3. Money.
    Check {
        promise: 3,
        what: "charged for units that the ledger never committed",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, 'captured, but a line is not in the ledger' AS detail \
              FROM {payment}.payments p JOIN {order}.order_lines n ON n.order_id = p.order_id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id AND l.units = n.units \
              WHERE p.captured_attempt IS NOT NULL AND l.order_id IS NULL",
    },
    Check {
        promise: 3,
        what: "charged twice",
        sql: "SELECT 'pay' AS kind, a.payment_id AS id, CONCAT(COUNT(*), ' attempts captured') AS detail FROM {payment}.attempts a \
              LEFT JOIN {payment}.refunds r ON r.payment_id = a.payment_id AND r.attempt = a.attempt \
              WHERE a.state = 'APPROVED' AND r.payment_id IS NULL GROUP BY a.payment_id HAVING COUNT(*) > 1",
    },
    Check {
        promise: 3,
        what: "refunded more than was captured",
        sql: "SELECT 'pay' AS kind, id, CONCAT('refunded ', refunded_minor, ' of ', captured_minor) AS detail \
              FROM {payment}.payments WHERE refunded_minor > captured_minor",
    },
    Check {
        promise: 3,
        what: "goods for another sum than was captured",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('total ', o.total_minor, ', captured ', COALESCE(p.captured_minor, 0)) AS detail \
              FROM {order}.orders o LEFT JOIN {payment}.payments p ON p.order_id = o.id \
              WHERE o.state = 'FULFILLED' AND (p.id IS NULL OR p.captured_attempt IS NULL OR p.captured_minor <> o.total_minor OR p.refunded_minor <> 0)",
    },
    Check {
        promise: 3,
        what: "paid, but neither goods nor the money back",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(o.state, ', captured ', p.captured_minor, ', refunded ', p.refunded_minor) AS detail \
              FROM {payment}.payments p JOIN {order}.orders o ON o.id = p.order_id \
              WHERE o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED') AND p.captured_minor <> p.refunded_minor",
    },
    // 4. Durability: an order that any other service knows of exists.
    Check {
        promise: 4,
        what: "a ledger row of an order that does not exist",
        sql: "SELECT 'ord' AS kind, l.order_id AS id, '' AS detail FROM {inventory}.ledger l \
              LEFT JOIN {order}.orders o ON o.id = l.order_id WHERE o.id IS NULL",
    },
    Check {
        promise: 4,
        what: "a payment of an order that does not exist",
        sql: "SELECT 'ord' AS kind, p.order_id AS id, '' AS detail FROM {payment}.payments p \
              LEFT JOIN {order}.orders o ON o.id = p.order_id WHERE o.id IS NULL",
    },
    Check {
        promise: 4,
        what: "an order without lines",
        sql: "SELECT 'ord' AS kind, o.id AS id, o.state AS detail FROM {order}.orders o \
              LEFT JOIN {order}.order_lines n ON n.order_id = o.id WHERE n.order_id IS NULL",
    },
    // 5. Every order ends.
    Check {
        promise: 5,
        what: "an order that does not move on",
        sql: "SELECT 'ord' AS kind, id, state AS detail FROM {order}.orders WHERE state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING') \
              OR (state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 10000000)",
    },
    Check {
        promise: 5,
        what: "an order has ended, but its units are still taken",
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT(o.state, ', ', l.units, ' units') AS detail FROM {inventory}.ledger l \
              JOIN {order}.orders o ON o.id = l.order_id WHERE l.state = 'COMMITTED' AND o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED')",
    },
    Check {
        promise: 5,
        what: "an order goes on, but its units are not in the ledger",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, o.state AS detail FROM {order}.orders o JOIN {order}.order_lines n ON n.order_id = o.id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id AND l.state = 'COMMITTED' \
              AND l.units = n.units AND l.gift_units = n.gift_units \
              WHERE o.state IN ('AWAITING_PAYMENT', 'PAYING', 'FULFILLED') AND l.order_id IS NULL",
    },
    Check {
        promise: 5,
        what: "paid, but the goods are not what was bought",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('bought ', n.units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {order}.order_lines n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'ITEM' \
              WHERE o.state = 'FULFILLED' AND COALESCE(g.units, 0) <> n.units",
    },
    Check {
        promise: 5,
        what: "paid, but the gift is not what was promised",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('promised ', n.gift_units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {order}.order_lines n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'GIFT' \
              WHERE o.state = 'FULFILLED' AND COALESCE(g.units, 0) <> n.gift_units",
    },
    Check {
        promise: 5,
        what: "goods without payment",
        sql: "SELECT 'ord' AS kind, g.order_id AS id, o.state AS detail FROM {order}.goods g JOIN {order}.orders o ON o.id = g.order_id \
              WHERE o.state NOT IN ('FULFILLED', 'REFUNDING', 'REFUNDED')",
    },
    Check {
        promise: 5,
        what: "a coupon is kept by an order that has ended without it",
        sql: "SELECT 'cpn' AS kind, c.id AS id, CONCAT(c.state, ', order ', COALESCE(o.state, 'unknown')) AS detail FROM {coupon}.coupons c \
              LEFT JOIN {order}.orders o ON o.id = c.order_id WHERE c.state IN ('HELD', 'USED') \
              AND (o.id IS NULL OR o.coupon_id IS NULL OR o.coupon_id <> c.id OR o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))",
    },
    Check {
        promise: 5,
        what: "an order was fulfilled with a coupon that is not used up",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon is ', COALESCE(c.state, 'unknown')) AS detail FROM {order}.orders o \
              LEFT JOIN {coupon}.coupons c ON c.id = o.coupon_id WHERE o.state = 'FULFILLED' AND o.coupon_id IS NOT NULL \
              AND (c.id IS NULL OR c.state <> 'USED' OR c.order_id <> o.id)",
    },
    // 6. Events.
    Check {
        promise: 6,
        what: "an event opened early",
        sql: "SELECT 'evt' AS kind, id, CONCAT(opens_at_us - opened_at_us, ' us early') AS detail FROM {event}.events WHERE opened_at_us < opens_at_us",
    },
    Check {
        promise: 6,
        what: "an event closed early",
        sql: "SELECT 'evt' AS kind, id, CONCAT(closes_at_us - closed_at_us, ' us early') AS detail FROM {event}.events \
              WHERE state = 'CLOSED' AND closed_at_us < closes_at_us",
    },
    Check {
        promise: 6,
        what: "an event is over its time and has not moved",
        sql: "SELECT 'evt' AS kind, id, state AS detail FROM {event}.events \
              WHERE due_at_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 1000000",
    },
    Check {
        promise: 6,
        what: "an order was taken before the event opened",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(e.opens_at_us - o.created_us, ' us early') AS detail FROM {order}.orders o \
              JOIN {event}.events e ON e.id = o.event_id WHERE o.created_us < e.opens_at_us",
    },
    // 8. Fairness.
    Check {
        promise: 8,
        what: "two orders of one event with one place of arrival",
        sql: "SELECT 'evt' AS kind, event_id AS id, CONCAT('arrival ', arrival, ' ', COUNT(*), ' times') AS detail \
              FROM {order}.orders GROUP BY event_id, arrival HAVING COUNT(*) > 1",
    },
    Check {
        promise: 8,
        what: "an order without a place of arrival",
        sql: "SELECT 'ord' AS kind, id, CONCAT('arrival ', arrival) AS detail FROM {order}.orders WHERE arrival < 1",
    },
];

/// Runs every query and notes what it found.
pub async fn run(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    for counted in COUNTED {
        audit.figure(counted.promise, counted.name, sources.count(counted.sql).await?);
    }
    for check in CHECKS {
        let found = sources.find(check.sql).await?;
        audit.breach(check.promise, check.what, found.iter().map(Found::name).collect());
    }
    Ok(())
}

/// Events open and close within `within_ms` of their time (p99). A time that had passed before it was set counts from
/// then on.
pub async fn punctuality(sources: &Sources, within_ms: u64, audit: &mut Audit) -> anyhow::Result<()> {
    let late = sources
        .rows(
            "SELECT CAST(opened_at_us - GREATEST(opens_at_us, created_us) AS SIGNED) FROM {event}.events WHERE opened_at_us IS NOT NULL \
             UNION ALL SELECT CAST(closed_at_us - GREATEST(closes_at_us, created_us) AS SIGNED) FROM {event}.events WHERE state = 'CLOSED'",
        )
        .await?;
    let mut late_us = late.iter().map(|row| row.try_get::<i64, _>(0)).collect::<Result<Vec<_>, _>>()?;
    late_us.sort_unstable();
    let Some(&p99_us) = late_us.get((late_us.len() * 99).div_ceil(100).saturating_sub(1)) else { return Ok(()) };
    audit.figure(6, "p99 lateness in us", p99_us);
    if p99_us > i64::try_from(within_ms.saturating_mul(1_000)).unwrap_or(i64::MAX) {
        audit.breach(6, format!("events are later than {within_ms} ms (p99)"), vec![format!("{p99_us} us")]);
    }
    Ok(())
}

/// What `simulate --acknowledged` wrote.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledged {
    orders: Vec<OrderId>,
    coupons: Vec<CouponId>,
}

/// Everything that was acknowledged to a buyer is still there.
pub async fn acknowledged(sources: &Sources, file: &Path, audit: &mut Audit) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let told: Acknowledged =
        serde_json::from_str(&text).with_context(|| format!("{} is not what simulate writes", file.display()))?;
    let orders = ids(sources, "SELECT id FROM {order}.orders").await?;
    let coupons = ids(sources, "SELECT id FROM {coupon}.coupons").await?;
    audit.figure(4, "orders acknowledged", i64::try_from(told.orders.len())?);
    audit.figure(4, "coupons acknowledged", i64::try_from(told.coupons.len())?);
    let lost = told.orders.iter().filter(|id| !orders.contains(id.as_bytes())).map(ToString::to_string).collect();
    audit.breach(4, "an acknowledged order is lost", lost);
    let lost = told.coupons.iter().filter(|id| !coupons.contains(id.as_bytes())).map(ToString::to_string).collect();
    audit.breach(4, "an issued coupon is lost", lost);
    Ok(())
}

async fn ids(sources: &Sources, sql: &str) -> anyhow::Result<HashSet<Vec<u8>>> {
    sources.rows(sql).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
