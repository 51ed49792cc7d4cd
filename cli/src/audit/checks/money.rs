//! Promise 3: requested, charged and refunded money.

use super::{
    Check,
    Table::{Attempts, Orders, Payments, Refunds},
};

pub const CHECKS: &[Check] = &[
    Check {
        promise: 3,
        what: "an order line has another price than the stock",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('line ', n.unit_price_minor, ', stock ', COALESCE(s.unit_price_minor, 'none')) AS detail \
              FROM {lines} n JOIN {order}.orders o ON o.id = n.order_id \
              LEFT JOIN {inventory}.stock s ON s.item_id = n.item_id AND s.event_id = o.event_id \
              WHERE o.id {page} AND (s.item_id IS NULL OR s.unit_price_minor <> n.unit_price_minor OR HEX(s.currency) <> HEX(o.currency))",
    },
    Check {
        promise: 3,
        what: "an order's sums are not those of its lines and its coupon",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, s.id AS id, CONCAT('lines ', s.lines_minor, ', coupon ', s.coupon_minor, \
              ', subtotal ', s.subtotal_minor, ', discount ', s.discount_minor, ', total ', s.total_minor) AS detail \
              FROM (SELECT o.id, o.subtotal_minor, o.discount_minor, o.total_minor, \
              SUM(n.units * n.unit_price_minor) AS lines_minor, COALESCE(MAX(c.discount_minor), 0) AS coupon_minor \
              FROM {order}.orders o JOIN {lines} n ON n.order_id = o.id \
              LEFT JOIN {coupon}.coupons p ON p.id = o.coupon_id LEFT JOIN {coupon}.campaigns c ON c.id = p.campaign_id \
              WHERE o.id {page} GROUP BY o.id, o.subtotal_minor, o.discount_minor, o.total_minor) AS s \
              WHERE s.lines_minor <> s.subtotal_minor \
              OR s.discount_minor <> LEAST(s.subtotal_minor, s.coupon_minor) \
              OR s.subtotal_minor - s.discount_minor <> s.total_minor",
    },
    Check {
        promise: 3,
        what: "a payment of another sum than its order's total",
        over: Some(Payments),
        sql: "SELECT 'pay' AS kind, p.id AS id, CONCAT('total ', o.total_minor, ', requested ', p.amount_minor, ', captured ', p.captured_minor) AS detail \
              FROM {payment}.payments p JOIN {order}.orders o ON o.id = p.order_id \
              WHERE p.id {page} AND (p.amount_minor <> o.total_minor OR HEX(p.currency) <> HEX(o.currency) \
              OR p.captured_minor <> CASE WHEN p.captured_attempt IS NULL THEN 0 ELSE p.amount_minor END)",
    },
    Check {
        promise: 3,
        what: "charged for units that the ledger never committed",
        over: Some(Payments),
        sql: "SELECT 'ord' AS kind, n.order_id AS id, 'captured, but a line is not in the ledger' AS detail \
              FROM {payment}.payments p JOIN {lines_of_payments} n ON n.order_id = p.order_id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id AND l.units = n.units \
              WHERE p.id {page} AND p.captured_attempt IS NOT NULL AND l.order_id IS NULL",
    },
    Check {
        promise: 3,
        what: "charged twice",
        over: Some(Attempts),
        // Also if the money went back: nobody may be charged for what they have paid.
        sql: "SELECT 'pay' AS kind, payment_id AS id, CONCAT(COUNT(*), ' attempts captured') AS detail FROM {payment}.attempts \
              WHERE payment_id {page} AND state = 'APPROVED' GROUP BY payment_id HAVING COUNT(*) > 1",
    },
    Check {
        promise: 3,
        what: "charged twice",
        over: Some(Refunds),
        // A refund of an unpaid attempt is of a second capture, unless an operator had declined the attempt.
        sql: "SELECT 'pay' AS kind, r.payment_id AS id, CONCAT('the refund of attempt ', r.attempt, ' is ', r.state, ', captured by ', \
              COALESCE(p.captured_attempt, 'none')) AS detail FROM {payment}.refunds r LEFT JOIN {payment}.payments p ON p.id = r.payment_id \
              WHERE r.payment_id {page} AND (p.captured_attempt IS NULL OR p.captured_attempt <> r.attempt) AND NOT {given_up}",
    },
    Check {
        promise: 3,
        what: "captured after an operator had declined it, and not refunded",
        over: Some(Refunds),
        sql: "SELECT 'pay' AS kind, r.payment_id AS id, CONCAT('the refund of attempt ', r.attempt, ' is ', r.state) AS detail \
              FROM {payment}.refunds r LEFT JOIN {payment}.payments p ON p.id = r.payment_id \
              WHERE r.payment_id {page} AND (p.captured_attempt IS NULL OR p.captured_attempt <> r.attempt) AND {given_up} \
              AND r.state <> 'REFUNDED'",
    },
    Check {
        promise: 3,
        what: "a payment is not the one of its order",
        over: Some(Payments),
        // The id of a payment is derived from that of its order, so another id may be a second payment. Each could be
        // charged once, and be valid by itself.
        sql: "SELECT 'ord' AS kind, order_id AS id, CONCAT('payment ', LOWER(HEX(id))) AS detail \
              FROM (SELECT id, order_id, SHA1(CONCAT({payment_root}, order_id)) AS h FROM {payment}.payments WHERE id {page}) AS p \
              WHERE id <> {payment_id}",
    },
    Check {
        promise: 3,
        what: "captured by an attempt that was not approved",
        over: Some(Payments),
        sql: "SELECT 'pay' AS kind, p.id AS id, CONCAT('attempt ', p.captured_attempt, ' is ', COALESCE(a.state, 'unknown')) AS detail \
              FROM {payment}.payments p LEFT JOIN {payment}.attempts a ON a.payment_id = p.id AND a.attempt = p.captured_attempt \
              WHERE p.id {page} AND (p.captured_attempt IS NOT NULL AND (a.state IS NULL OR a.state <> 'APPROVED'))",
    },
    Check {
        promise: 3,
        what: "refunded more than was captured",
        over: Some(Payments),
        sql: "SELECT 'pay' AS kind, id, CONCAT('refunded ', refunded_minor, ' of ', captured_minor) AS detail \
              FROM {payment}.payments WHERE id {page} AND refunded_minor > captured_minor",
    },
    Check {
        promise: 3,
        what: "written down as refunded, but the refund was not done",
        over: Some(Payments),
        sql: "SELECT 'pay' AS kind, p.id AS id, CONCAT('refunded ', p.refunded_minor, ', the refund is ', COALESCE(r.state, 'unknown')) AS detail \
              FROM {payment}.payments p LEFT JOIN {payment}.refunds r ON r.payment_id = p.id AND r.attempt = p.captured_attempt \
              WHERE p.id {page} AND ((p.state = 'REFUNDED' OR p.refunded_minor > 0) AND (r.state IS NULL OR r.state <> 'REFUNDED'))",
    },
    Check {
        promise: 3,
        what: "goods for another sum than was captured",
        over: Some(Payments),
        // From the payments to the orders: only orders have an index for the other way.
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('total ', o.total_minor, ', captured ', p.captured_minor) AS detail \
              FROM {payment}.payments p JOIN {order}.orders o ON o.id = p.order_id \
              WHERE p.id {page} AND (o.state = 'FULFILLED' AND (p.captured_attempt IS NULL OR p.captured_minor <> o.total_minor OR p.refunded_minor <> 0))",
    },
    Check {
        promise: 3,
        what: "goods for another sum than was captured",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('total ', o.total_minor, ', no payment') AS detail \
              FROM (SELECT id, total_minor, SHA1(CONCAT({payment_root}, id)) AS h FROM {order}.orders WHERE id {page} AND state = 'FULFILLED') AS o \
              LEFT JOIN {payment}.payments p ON p.id = {payment_id} WHERE p.id IS NULL",
    },
    Check {
        promise: 3,
        what: "an anomaly that nobody has settled",
        over: None,
        sql: "SELECT 'pay' AS kind, payment_id AS id, CONCAT(subject, ' of attempt ', attempt, ': ', kind) AS detail \
              FROM {payment}.anomalies WHERE state <> 'SETTLED'",
    },
    Check {
        promise: 3,
        what: "paid, but neither goods nor the money back",
        over: Some(Payments),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(o.state, ', captured ', p.captured_minor, ', refunded ', p.refunded_minor) AS detail \
              FROM {payment}.payments p JOIN {order}.orders o ON o.id = p.order_id \
              WHERE p.id {page} AND o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED') AND p.captured_minor <> p.refunded_minor",
    },
];
