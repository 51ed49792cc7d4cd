//! Numbers of compared rows.

use crate::audit::{
    sources::Sources,
    verdict::{Audit, Number},
};

/// A count of compared rows, which shows how much was compared.
struct Counted {
    promise: Number,
    name: &'static str,
    sql: &'static str,
}

/// Runs all counts.
pub async fn note(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    for counted in COUNTED {
        audit.figure(counted.promise, counted.name, sources.count(counted.sql).await?);
    }
    for counted in RARE {
        let value = sources.count(counted.sql).await?;
        if value > 0 {
            audit.figure(counted.promise, counted.name, value);
        }
    }
    Ok(())
}

/// Counts that are shown only if they are not zero.
const RARE: &[Counted] = &[Counted {
    promise: 3,
    name: "late captures refunded after an operator's decline",
    sql: "SELECT COUNT(DISTINCT r.payment_id, r.attempt) FROM {payment}.anomalies n \
          JOIN {payment}.refunds r ON r.payment_id = n.payment_id AND r.attempt = n.attempt \
          JOIN {payment}.payments p ON p.id = r.payment_id \
          WHERE n.subject = 'CHARGE' AND n.state = 'SETTLED' AND n.verdict = 'DECLINED' AND r.state = 'REFUNDED' \
          AND (p.captured_attempt IS NULL OR p.captured_attempt <> r.attempt)",
}];

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
    Counted {
        promise: 6,
        name: "closed",
        sql: "SELECT COUNT(*) FROM {event}.events \
              WHERE state = 'CLOSED' OR COALESCE(closed_before_cancel_us, closed_seen_us) IS NOT NULL",
    },
    Counted { promise: 8, name: "orders", sql: "SELECT COUNT(*) FROM {order}.orders" },
    Counted {
        promise: 8,
        name: "places of arrival",
        sql: "SELECT COUNT(DISTINCT event_id, arrival) FROM {order}.orders WHERE arrival > 0",
    },
    Counted { promise: 8, name: "coupons", sql: "SELECT COUNT(*) FROM {coupon}.coupons" },
    Counted {
        promise: 8,
        name: "ranks",
        sql: "SELECT COUNT(DISTINCT campaign_id, rank_no) FROM {coupon}.coupons WHERE rank_no > 0",
    },
];
