//! Promises 4 and 5: each acknowledged order exists, reaches a final state, and has the goods, units and money of that
//! state.

use super::{
    Check,
    Table::{Attempts, Coupons, Goods, Ledger, Orders, Payments, Refunds},
};

pub const CHECKS: &[Check] = &[
    Check {
        promise: 4,
        what: "a ledger row of an order that does not exist",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, '' AS detail FROM {inventory}.ledger l \
              LEFT JOIN {order}.orders o ON o.id = l.order_id WHERE l.order_id {page} AND o.id IS NULL AND NOT {void}",
    },
    Check {
        promise: 4,
        what: "a payment of an order that does not exist",
        over: Some(Payments),
        sql: "SELECT 'ord' AS kind, p.order_id AS id, '' AS detail FROM {payment}.payments p \
              LEFT JOIN {order}.orders o ON o.id = p.order_id WHERE p.id {page} AND o.id IS NULL",
    },
    Check {
        promise: 4,
        what: "an order without lines",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, o.state AS detail FROM {order}.orders o \
              LEFT JOIN {lines} n ON n.order_id = o.id WHERE o.id {page} AND n.order_id IS NULL",
    },
    Check {
        promise: 5,
        what: "an order that does not move on",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, id, state AS detail FROM {order}.orders WHERE id {page} AND (state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING') \
              OR (state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 10000000))",
    },
    Check {
        promise: 5,
        what: "an order in a state that cannot be",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, id, state AS detail FROM {order}.orders \
              WHERE id {page} AND (state NOT IN ('PENDING', 'AWAITING_PAYMENT', 'PAYING', 'PAID', 'FULFILLED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDING', 'REFUNDED') \
              OR (state = 'AWAITING_PAYMENT' AND pay_deadline_us IS NULL) OR (state = 'FULFILLED' AND fulfilled_at_us IS NULL))",
    },
    Check {
        promise: 5,
        what: "a payment that does not move on",
        over: Some(Payments),
        sql: "SELECT 'pay' AS kind, id, CONCAT('payment ', state) AS detail FROM {payment}.payments \
              WHERE id {page} AND state NOT IN ('OPEN', 'CAPTURED', 'REFUNDED')",
    },
    Check {
        promise: 5,
        what: "a payment that does not move on",
        over: Some(Attempts),
        sql: "SELECT 'pay' AS kind, payment_id AS id, CONCAT('attempt ', attempt, ' ', state) AS detail FROM {payment}.attempts \
              WHERE payment_id {page} AND state NOT IN ('APPROVED', 'DECLINED')",
    },
    Check {
        promise: 5,
        what: "a payment that does not move on",
        over: Some(Refunds),
        sql: "SELECT 'pay' AS kind, payment_id AS id, CONCAT('refund of attempt ', attempt, ' ', state) AS detail FROM {payment}.refunds \
              WHERE payment_id {page} AND state <> 'REFUNDED'",
    },
    Check {
        promise: 5,
        what: "an order has ended, but its units are still taken",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT(o.state, ', ', l.units, ' units') AS detail FROM {inventory}.ledger l \
              JOIN {order}.orders o ON o.id = l.order_id WHERE l.order_id {page} AND l.state = 'COMMITTED' AND o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED')",
    },
    Check {
        promise: 5,
        what: "an order goes on, but its units are not in the ledger",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, n.order_id AS id, o.state AS detail FROM {order}.orders o JOIN {lines} n ON n.order_id = o.id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id AND l.state = 'COMMITTED' \
              AND l.units = n.units AND l.gift_units = n.gift_units \
              WHERE o.id {page} AND o.state IN ('AWAITING_PAYMENT', 'PAYING', 'FULFILLED') AND l.order_id IS NULL",
    },
    // By default the sweep looks up the order of each after 15 s, and then confirms it or releases its units.
    Check {
        promise: 5,
        what: "a reservation was neither confirmed nor given back",
        over: None,
        sql: "SELECT 'ord' AS kind, order_id AS id, CONCAT('requested at ', asked_at_us, ' us') AS detail FROM {inventory}.reservations \
              WHERE asked_at_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 60000000",
    },
    // The goods of an order that is one row are its lines and gifts as of its fulfilment. Those of an order that was
    // written for an earlier release are rows, kept as a record after a refund: every such order that ever was
    // fulfilled has them.
    Check {
        promise: 5,
        what: "paid, but the goods are not what was bought",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('bought ', n.units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {lines} n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'ITEM' \
              WHERE o.id {page} AND (o.line_list IS NULL AND (o.state = 'FULFILLED' OR o.fulfilled_at_us IS NOT NULL) AND COALESCE(g.units, 0) <> n.units)",
    },
    Check {
        promise: 5,
        what: "paid, but the gift is not what was promised",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('promised ', n.gift_units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {lines} n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'GIFT' \
              WHERE o.id {page} AND (o.line_list IS NULL AND (o.state = 'FULFILLED' OR o.fulfilled_at_us IS NOT NULL) AND COALESCE(g.units, 0) <> n.gift_units)",
    },
    Check {
        promise: 5,
        what: "goods that were not bought",
        over: Some(Goods),
        sql: "SELECT 'ord' AS kind, g.order_id AS id, CONCAT(g.units, ' of kind ', g.kind) AS detail FROM {order}.goods g \
              LEFT JOIN {lines} n ON n.order_id = g.order_id AND n.item_id = g.item_id \
              WHERE g.order_id {page} AND (n.order_id IS NULL OR g.kind NOT IN ('ITEM', 'GIFT') \
              OR g.units <> CASE WHEN g.kind = 'ITEM' THEN n.units ELSE n.gift_units END)",
    },
    Check {
        promise: 5,
        what: "goods without payment",
        over: Some(Goods),
        sql: "SELECT 'ord' AS kind, g.order_id AS id, COALESCE(o.state, 'unknown') AS detail FROM {order}.goods g \
              LEFT JOIN {order}.orders o ON o.id = g.order_id \
              WHERE g.order_id {page} AND (o.id IS NULL OR o.fulfilled_at_us IS NULL OR o.state NOT IN ('FULFILLED', 'REFUNDING', 'REFUNDED'))",
    },
    Check {
        promise: 5,
        what: "a coupon is kept by an order that has ended without it",
        over: Some(Coupons),
        sql: "SELECT 'cpn' AS kind, c.id AS id, CONCAT(c.state, ', order ', COALESCE(o.state, 'unknown')) AS detail FROM {coupon}.coupons c \
              LEFT JOIN {order}.orders o ON o.id = c.order_id WHERE c.id {page} AND (c.state IN ('HELD', 'USED') \
              AND (o.id IS NULL OR o.coupon_id IS NULL OR o.coupon_id <> c.id OR o.state IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED')))",
    },
    Check {
        promise: 5,
        what: "an order goes on, but its coupon is not held for it",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon is ', COALESCE(c.state, 'unknown')) AS detail FROM {order}.orders o \
              LEFT JOIN {coupon}.coupons c ON c.id = o.coupon_id WHERE o.id {page} AND (o.state IN ('AWAITING_PAYMENT', 'PAYING') AND o.coupon_id IS NOT NULL \
              AND (c.id IS NULL OR c.state <> 'HELD' OR c.order_id <> o.id))",
    },
    Check {
        promise: 5,
        what: "an order was fulfilled with a coupon that is not used up",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon is ', COALESCE(c.state, 'unknown')) AS detail FROM {order}.orders o \
              LEFT JOIN {coupon}.coupons c ON c.id = o.coupon_id WHERE o.id {page} AND (o.state = 'FULFILLED' AND o.coupon_id IS NOT NULL \
              AND (c.id IS NULL OR c.state <> 'USED' OR c.order_id <> o.id))",
    },
];
