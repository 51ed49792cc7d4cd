//! Promise 1: the items of the event, the stock, the ledger and the lines of orders agree.

use super::{
    Check,
    Table::{Ledger, Orders},
};

/// HEX makes texts of different character sets comparable.
pub const CHECKS: &[Check] = &[
    Check {
        promise: 1,
        what: "more units committed than there are",
        over: None,
        sql: "SELECT 'itm' AS kind, item_id AS id, CONCAT(committed_units, ' of ', total_units) AS detail \
              FROM {inventory}.stock WHERE committed_units > total_units",
    },
    Check {
        promise: 1,
        what: "more gifts committed than there are",
        over: None,
        sql: "SELECT 'itm' AS kind, item_id AS id, CONCAT(gift_committed_units, ' of ', gift_total_units) AS detail \
              FROM {inventory}.stock WHERE gift_committed_units > gift_total_units",
    },
    Check {
        promise: 1,
        what: "the ledger's rows do not add up to what is committed",
        over: None,
        sql: "SELECT 'itm' AS kind, s.item_id AS id, CONCAT('rows ', COALESCE(SUM(l.units), 0), ' and ', COALESCE(SUM(l.gift_units), 0), \
              ' gifts, committed ', s.committed_units, ' and ', s.gift_committed_units) AS detail \
              FROM {inventory}.stock s LEFT JOIN {inventory}.ledger l ON l.item_id = s.item_id AND l.state = 'COMMITTED' \
              GROUP BY s.item_id, s.committed_units, s.gift_committed_units \
              HAVING COALESCE(SUM(l.units), 0) <> s.committed_units OR COALESCE(SUM(l.gift_units), 0) <> s.gift_committed_units",
    },
    Check {
        promise: 1,
        what: "units are taken of an item that is not in the stock",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT(l.units, ' units') AS detail FROM {inventory}.ledger l \
              LEFT JOIN {inventory}.stock s ON s.item_id = l.item_id WHERE l.order_id {page} AND s.item_id IS NULL",
    },
    Check {
        promise: 1,
        what: "a buyer has more than the limit",
        over: None,
        sql: "SELECT 'itm' AS kind, l.item_id AS id, CONCAT('buyer ', LOWER(HEX(l.user_id)), ' has ', SUM(l.units), ' of ', s.limit_per_buyer) AS detail \
              FROM {inventory}.ledger l JOIN {inventory}.stock s ON s.item_id = l.item_id WHERE l.state = 'COMMITTED' \
              GROUP BY l.item_id, l.user_id, s.limit_per_buyer HAVING SUM(l.units) > s.limit_per_buyer",
    },
    Check {
        promise: 1,
        what: "an event offers an item that is not in the stock",
        over: None,
        sql: "SELECT 'itm' AS kind, i.id AS id, '' AS detail FROM {event}.items i \
              LEFT JOIN {inventory}.stock s ON s.item_id = i.id WHERE s.item_id IS NULL",
    },
    Check {
        promise: 1,
        what: "an item is in the stock that no event offers",
        over: None,
        sql: "SELECT 'itm' AS kind, s.item_id AS id, '' AS detail FROM {inventory}.stock s \
              LEFT JOIN {event}.items i ON i.id = s.item_id WHERE i.id IS NULL",
    },
    Check {
        promise: 1,
        what: "the stock is not what the event offers",
        over: None,
        sql: "SELECT 'itm' AS kind, i.id AS id, CONCAT('stock ', s.total_units, ' units, ', s.gift_total_units, ' gifts, ', s.limit_per_buyer, \
              ' a buyer, price ', s.unit_price_minor, '; event ', i.total_units, ' units, ', i.gift_total_units, ' gifts, ', \
              i.limit_per_buyer, ' a buyer, price ', i.unit_price_minor) AS detail \
              FROM {event}.items i JOIN {inventory}.stock s ON s.item_id = i.id \
              WHERE s.event_id <> i.event_id OR s.total_units <> i.total_units OR s.gift_total_units <> i.gift_total_units \
              OR s.limit_per_buyer <> i.limit_per_buyer OR s.unit_price_minor <> i.unit_price_minor OR HEX(s.currency) <> HEX(i.currency)",
    },
    // A cancelled event ends its sale early.
    Check {
        promise: 1,
        what: "the stock is sold at another time than the event says",
        over: None,
        sql: "SELECT 'itm' AS kind, s.item_id AS id, CONCAT('stock ', s.opens_at_us, ' to ', s.closes_at_us, \
              ', event ', e.opens_at_us, ' to ', e.closes_at_us, ' us') AS detail \
              FROM {inventory}.stock s JOIN {event}.events e ON e.id = s.event_id \
              WHERE s.opens_at_us <> e.opens_at_us OR s.closes_at_us <> \
              CASE WHEN e.state = 'CANCELLED' THEN LEAST(e.closes_at_us, e.closed_at_us) ELSE e.closes_at_us END",
    },
    // An earlier release accepted orders before their units were in the ledger; one that was cancelled before has no
    // deadline.
    Check {
        promise: 1,
        what: "an order was accepted without its units in the ledger",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT(o.state, ', item ', LOWER(HEX(n.item_id))) AS detail FROM {order}.orders o \
              JOIN {lines} n ON n.order_id = o.id \
              LEFT JOIN {inventory}.ledger l ON l.order_id = n.order_id AND l.item_id = n.item_id \
              WHERE o.id {page} AND o.state NOT IN ('PENDING', 'REJECTED') AND l.order_id IS NULL \
              AND NOT (o.state = 'CANCELLED' AND o.pay_deadline_us IS NULL)",
    },
    // The ledger refuses units that were granted outside of the window that it has then; a cancellation reaches it
    // late.
    Check {
        promise: 1,
        what: "units were granted outside of the event's window",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT('granted ', l.granted_at_us, ', window ', e.opens_at_us, ' to ', \
              e.closes_at_us, ' us') AS detail FROM {inventory}.ledger l STRAIGHT_JOIN {event}.events e ON e.id = l.event_id \
              WHERE l.order_id {page} AND (l.granted_at_us < e.opens_at_us OR l.granted_at_us >= e.closes_at_us \
              OR (e.state = 'CANCELLED' AND l.granted_at_us >= e.closed_at_us + 30000000))",
    },
    Check {
        promise: 1,
        what: "the ledger has units that their order did not ask for",
        over: Some(Ledger),
        sql: "SELECT 'ord' AS kind, l.order_id AS id, CONCAT(l.units, ' units and ', l.gift_units, ' gifts') AS detail FROM {inventory}.ledger l \
              JOIN {order}.orders o ON o.id = l.order_id \
              LEFT JOIN {lines} n ON n.order_id = l.order_id AND n.item_id = l.item_id \
              AND n.units = l.units AND n.gift_units = l.gift_units \
              WHERE l.order_id {page} AND ((n.order_id IS NULL OR o.user_id <> l.user_id OR o.event_id <> l.event_id) AND NOT {void})",
    },
];
