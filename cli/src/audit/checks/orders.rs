//! Promises 4 and 5: an order that anybody knows of exists, ends, and has at its end what belongs to it.

use super::Check;

pub const CHECKS: &[Check] = &[
    Check {
        promise: 4,
        what: "a ledger row of an order that does not exist",
        sql: "SELECT 'ord' AS kind, l.order_id AS id, '' AS detail FROM {inventory}.ledger l \
              LEFT JOIN {order}.orders o ON o.id = l.order_id WHERE o.id IS NULL AND NOT {void}",
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
              LEFT JOIN {order}.all_order_lines n ON n.order_id = o.id WHERE n.order_id IS NULL",
    },
    Check {
        promise: 5,
        what: "an order that does not move on",
        sql: "SELECT 'ord' AS kind, id, state AS detail FROM {order}.orders WHERE state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING') \
              OR (state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 10000000)",
    },
    Check {
        promise: 5,
        what: "an order in a state that cannot be",
        sql: "SELECT 'ord' AS kind, id, state AS detail FROM {order}.orders \
              WHERE state NOT IN ('PENDING', 'AWAITING_PAYMENT', 'PAYING', 'PAID', 'FULFILLED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDING', 'REFUNDED') \
              OR (state = 'AWAITING_PAYMENT' AND pay_deadline_us IS NULL) OR (state = 'FULFILLED' AND fulfilled_at_us IS NULL)",
    },
    Check {
        promise: 5,
        what: "a payment that does not move on",
        sql: "SELECT 'pay' AS kind, id, CONCAT('payment ', state) AS detail FROM {payment}.payments \
              WHERE state NOT IN ('OPEN', 'CAPTURED', 'REFUNDED') \
              UNION ALL SELECT 'pay', payment_id, CONCAT('attempt ', attempt, ' ', state) FROM {payment}.attempts \
              WHERE state NOT IN ('APPROVED', 'DECLINED') \
              UNION ALL SELECT 'pay', payment_id, CONCAT('refund of attempt ', attempt, ' ', state) FROM {payment}.refunds \
              WHERE state <> 'REFUNDED'",
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
        sql: "SELECT 'ord' AS kind, n.order_id AS id, o.state AS detail FROM {order}.orders o JOIN {order}.all_order_lines n ON n.order_id = o.id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id AND l.state = 'COMMITTED' \
              AND l.units = n.units AND l.gift_units = n.gift_units \
              WHERE o.state IN ('AWAITING_PAYMENT', 'PAYING', 'FULFILLED') AND l.order_id IS NULL",
    },
    // By default the sweep looks up the order of each after 15 s, and then confirms it or gives its units back.
    Check {
        promise: 5,
        what: "a reservation was neither confirmed nor given back",
        sql: "SELECT 'ord' AS kind, order_id AS id, CONCAT('asked for at ', asked_at_us, ' us') AS detail FROM {inventory}.reservations \
              WHERE asked_at_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 60000000",
    },
    // The goods of an order that is one row are its lines and gifts as of its fulfilment. Those of an order that was
    // written for an earlier release are rows, kept as a record after a refund: every such order that ever was fulfilled
    // has them.
    Check {
        promise: 5,
        what: "paid, but the goods are not what was bought",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('bought ', n.units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {order}.all_order_lines n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'ITEM' \
              WHERE o.line_list IS NULL AND (o.state = 'FULFILLED' OR o.fulfilled_at_us IS NOT NULL) AND COALESCE(g.units, 0) <> n.units",
    },
    Check {
        promise: 5,
        what: "paid, but the gift is not what was promised",
        sql: "SELECT 'ord' AS kind, n.order_id AS id, CONCAT('promised ', n.gift_units, ', got ', COALESCE(g.units, 0)) AS detail \
              FROM {order}.orders o JOIN {order}.all_order_lines n ON n.order_id = o.id \
              LEFT JOIN {order}.goods g ON g.order_id = n.order_id AND g.item_id = n.item_id AND g.kind = 'GIFT' \
              WHERE o.line_list IS NULL AND (o.state = 'FULFILLED' OR o.fulfilled_at_us IS NOT NULL) AND COALESCE(g.units, 0) <> n.gift_units",
    },
    Check {
        promise: 5,
        what: "goods that were not bought",
        sql: "SELECT 'ord' AS kind, g.order_id AS id, CONCAT(g.units, ' of kind ', g.kind) AS detail FROM {order}.goods g \
              LEFT JOIN {order}.all_order_lines n ON n.order_id = g.order_id AND n.item_id = g.item_id \
              WHERE n.order_id IS NULL OR g.kind NOT IN ('ITEM', 'GIFT') \
              OR g.units <> CASE WHEN g.kind = 'ITEM' THEN n.units ELSE n.gift_units END",
    },
    Check {
        promise: 5,
        what: "goods without payment",
        sql: "SELECT 'ord' AS kind, g.order_id AS id, COALESCE(o.state, 'unknown') AS detail FROM {order}.goods g \
              LEFT JOIN {order}.orders o ON o.id = g.order_id \
              WHERE o.id IS NULL OR o.fulfilled_at_us IS NULL OR o.state NOT IN ('FULFILLED', 'REFUNDING', 'REFUNDED')",
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
        what: "an order goes on, but its coupon is not held for it",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon is ', COALESCE(c.state, 'unknown')) AS detail FROM {order}.orders o \
              LEFT JOIN {coupon}.coupons c ON c.id = o.coupon_id WHERE o.state IN ('AWAITING_PAYMENT', 'PAYING') AND o.coupon_id IS NOT NULL \
              AND (c.id IS NULL OR c.state <> 'HELD' OR c.order_id <> o.id)",
    },
    Check {
        promise: 5,
        what: "an order was fulfilled with a coupon that is not used up",
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon is ', COALESCE(c.state, 'unknown')) AS detail FROM {order}.orders o \
              LEFT JOIN {coupon}.coupons c ON c.id = o.coupon_id WHERE o.state = 'FULFILLED' AND o.coupon_id IS NOT NULL \
              AND (c.id IS NULL OR c.state <> 'USED' OR c.order_id <> o.id)",
    },
];
