//! Ways to break each promise by hand in the databases, and the breach that the audit has to report for each.

use stampede_testkit::Service;

/// A break, by SQL in some schemas, and how it is mended.
///
/// `{order}`, `{item}`, `{event}`, `{user}`, `{coupon}`, `{campaign}` and `{payment}` stand for the ids of the one
/// purchase as SQL has them, `{a}` to `{d}` for ids that nothing has, `{now}` for the time in microseconds, `{topics}`
/// for the prefix of the topics.
pub struct Break {
    pub by: &'static [(Service, &'static str)],
    pub mended_by: &'static [(Service, &'static str)],
    /// The promise, the breach, and the id that has to be named.
    pub named: &'static [(usize, &'static str, Id)],
}

/// The owner of the id.
#[derive(Debug, Clone, Copy)]
pub enum Id {
    User,
    Order,
    Item,
    Event,
    Coupon,
    Campaign,
    Payment,
    /// A made-up order, by its byte.
    MadeUpOrder(u8),
    MadeUpItem(u8),
    MadeUpCoupon(u8),
    MadeUpPayment(u8),
    Text(&'static str),
}

/// Statements that drop the constraints by which the databases prevent breaks.
pub const GUARDS: &[(Service, &str)] = &[
    (Service::Inventory, "ALTER TABLE stock DROP CONSTRAINT stock_never_oversold"),
    (Service::Inventory, "ALTER TABLE stock DROP CONSTRAINT stock_gifts_never_oversold"),
    (Service::Coupon, "ALTER TABLE coupons DROP PRIMARY KEY"),
    (Service::Coupon, "ALTER TABLE coupons DROP KEY uq_coupons_user"),
    (Service::Coupon, "ALTER TABLE coupons DROP CONSTRAINT ck_coupons_rank"),
    (Service::Event, "ALTER TABLE events DROP CONSTRAINT ck_events_state"),
    (Service::Event, "ALTER TABLE events DROP CONSTRAINT ck_events_never_early"),
    (Service::Order, "ALTER TABLE orders DROP CONSTRAINT ck_orders_total"),
    (Service::Payment, "ALTER TABLE payments DROP CONSTRAINT ck_payments_refunded"),
    (Service::Payment, "ALTER TABLE payments DROP CONSTRAINT ck_payments_captured"),
];

const SECOND_COUPON: &str = "INSERT INTO coupons SELECT {a}, campaign_id, {b}, 2, campaign_quota, 'ISSUED', NULL, NULL, 'x', 1, created_us, updated_us FROM coupons WHERE id = {coupon}";
const NO_SECOND_COUPON: &str = "DELETE FROM coupons WHERE id = {a}";

const AS_BEFORE: &[(Service, &str)] = &[
    (Service::Order, "CREATE TABLE kept AS SELECT id, line_list FROM orders WHERE id = {order}"),
    (
        Service::Order,
        "INSERT INTO order_lines (order_id, line_no, item_id, units, unit_price_minor, gift_units) SELECT order_id, 0, item_id, units, unit_price_minor, gift_units FROM all_order_lines WHERE order_id = {order}",
    ),
    (Service::Order, "UPDATE orders SET line_list = NULL WHERE id = {order}"),
];
const NOT_AS_BEFORE: &[(Service, &str)] = &[
    (Service::Order, "DELETE FROM order_lines"),
    (Service::Order, "UPDATE orders SET line_list = (SELECT line_list FROM kept) WHERE id = {order}"),
    (Service::Order, "DROP TABLE kept"),
];
const RESTORE_LINES: &[(Service, &str)] = &[
    (Service::Order, "UPDATE orders SET line_list = (SELECT line_list FROM kept) WHERE id = {order}"),
    (Service::Order, "DROP TABLE kept"),
];

#[rustfmt::skip]
pub const BREAKS: &[Break] = &[
    // 1. Never oversold.
    Break {
        by: &[(Service::Inventory, "UPDATE stock SET committed_units = total_units + 1 WHERE item_id = {item}")],
        mended_by: &[(Service::Inventory, "UPDATE stock SET committed_units = 2 WHERE item_id = {item}")],
        named: &[
            (1, "more units committed than there are", Id::Item),
            (1, "the ledger's rows do not add up to what is committed", Id::Item),
            (5, "Redis has another number of committed units than the ledger", Id::Item),
        ],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE stock SET gift_committed_units = gift_total_units + 1 WHERE item_id = {item}")],
        mended_by: &[(Service::Inventory, "UPDATE stock SET gift_committed_units = 1 WHERE item_id = {item}")],
        named: &[(1, "more gifts committed than there are", Id::Item)],
    },
    Break {
        by: &[(Service::Inventory, "INSERT INTO ledger SELECT {a}, item_id, user_id, event_id, arrival, units, gift_units, state, committed_at_us, NULL, granted_at_us, NULL, NULL, NULL FROM ledger WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "DELETE FROM ledger WHERE order_id = {a}")],
        named: &[
            (1, "the ledger's rows do not add up to what is committed", Id::Item),
            (4, "a ledger row of an order that does not exist", Id::MadeUpOrder(0xAA)),
            (8, "two orders of one event with one place of arrival in the ledger", Id::Event),
        ],
    },
    Break {
        by: &[(Service::Inventory, "INSERT INTO ledger SELECT order_id, {d}, user_id, event_id, arrival, 1, 0, state, committed_at_us, NULL, granted_at_us, NULL, NULL, NULL FROM ledger WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "DELETE FROM ledger WHERE item_id = {d}")],
        named: &[
            (1, "units are taken of an item that is not in the stock", Id::Order),
            (1, "the ledger has units that their order did not ask for", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE ledger SET order_id = {a} WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "UPDATE ledger SET order_id = {order} WHERE order_id = {a}")],
        named: &[
            (1, "an order was accepted without its units in the ledger", Id::Order),
            (4, "a ledger row of an order that does not exist", Id::MadeUpOrder(0xAA)),
            (5, "an order goes on, but its units are not in the ledger", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE ledger SET granted_at_us = granted_at_us - 1000000000000 WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "UPDATE ledger SET granted_at_us = granted_at_us + 1000000000000 WHERE order_id = {order}")],
        named: &[(1, "units were granted outside of the event's window", Id::Order)],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE stock SET limit_per_buyer = 1 WHERE item_id = {item}")],
        mended_by: &[(Service::Inventory, "UPDATE stock SET limit_per_buyer = 3 WHERE item_id = {item}")],
        named: &[(1, "a buyer has more than the limit", Id::Item), (1, "the stock is not what the event offers", Id::Item)],
    },
    Break {
        by: &[(Service::Event, "INSERT INTO items SELECT {d}, event_id, 9, title, unit_price_minor, currency, total_units, limit_per_buyer, gift_title, gift_total_units FROM items WHERE id = {item}")],
        mended_by: &[(Service::Event, "DELETE FROM items WHERE id = {d}")],
        named: &[(1, "an event offers an item that is not in the stock", Id::MadeUpItem(0xDD))],
    },
    Break {
        by: &[(Service::Inventory, "INSERT INTO stock SELECT {d}, event_id, event_version, opens_at_us, closes_at_us, total_units, 0, limit_per_buyer, gift_total_units, 0, unit_price_minor, currency, 0, arrivals_floor, 0, FALSE, NULL, NULL, NULL, NULL, NULL FROM stock WHERE item_id = {item}")],
        mended_by: &[(Service::Inventory, "DELETE FROM stock WHERE item_id = {d}")],
        named: &[
            (1, "an item is in the stock that no event offers", Id::MadeUpItem(0xDD)),
            (5, "an item of an event that goes on is not in Redis", Id::MadeUpItem(0xDD)),
        ],
    },
    Break {
        by: &[(Service::Event, "UPDATE items SET unit_price_minor = unit_price_minor + 1 WHERE id = {item}")],
        mended_by: &[(Service::Event, "UPDATE items SET unit_price_minor = unit_price_minor - 1 WHERE id = {item}")],
        named: &[(1, "the stock is not what the event offers", Id::Item)],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE stock SET closes_at_us = closes_at_us + 1 WHERE item_id = {item}")],
        mended_by: &[(Service::Inventory, "UPDATE stock SET closes_at_us = closes_at_us - 1 WHERE item_id = {item}")],
        named: &[(1, "the stock is sold at another time than the event says", Id::Item)],
    },
    // 2. Coupons.
    Break {
        by: &[(Service::Coupon, SECOND_COUPON), (Service::Coupon, "UPDATE campaigns SET quota = 1 WHERE id = {campaign}")],
        mended_by: &[(Service::Coupon, NO_SECOND_COUPON), (Service::Coupon, "UPDATE campaigns SET quota = 5 WHERE id = {campaign}")],
        named: &[(2, "more coupons than the quota", Id::Campaign), (2, "Redis would give a rank again", Id::Campaign)],
    },
    Break {
        by: &[(Service::Coupon, SECOND_COUPON), (Service::Coupon, "UPDATE coupons SET campaign_id = {d} WHERE id = {a}")],
        mended_by: &[(Service::Coupon, NO_SECOND_COUPON)],
        named: &[(2, "a coupon of a campaign that does not exist", Id::MadeUpCoupon(0xAA))],
    },
    Break {
        by: &[(Service::Coupon, "UPDATE coupons SET rank_no = 9 WHERE id = {coupon}")],
        mended_by: &[(Service::Coupon, "UPDATE coupons SET rank_no = 1 WHERE id = {coupon}")],
        named: &[(2, "a rank outside the quota", Id::Coupon)],
    },
    Break {
        by: &[(Service::Coupon, SECOND_COUPON), (Service::Coupon, "UPDATE coupons SET rank_no = 1 WHERE id = {a}")],
        mended_by: &[(Service::Coupon, NO_SECOND_COUPON)],
        named: &[(2, "a rank given twice", Id::Campaign)],
    },
    Break {
        by: &[(Service::Coupon, SECOND_COUPON), (Service::Coupon, "UPDATE coupons SET user_id = {user} WHERE id = {a}")],
        mended_by: &[(Service::Coupon, NO_SECOND_COUPON)],
        named: &[(2, "two coupons of one campaign for one user", Id::Campaign)],
    },
    Break {
        by: &[(Service::Coupon, "UPDATE coupons SET created_us = created_us - 86400000000 WHERE id = {coupon}")],
        mended_by: &[(Service::Coupon, "UPDATE coupons SET created_us = created_us + 86400000000 WHERE id = {coupon}")],
        named: &[(2, "a coupon was claimed outside its campaign's time", Id::Coupon)],
    },
    Break {
        by: &[(Service::Coupon, "UPDATE coupons SET created_us = created_us + 86400000000 WHERE id = {coupon}")],
        mended_by: &[(Service::Coupon, "UPDATE coupons SET created_us = created_us - 86400000000 WHERE id = {coupon}")],
        named: &[(2, "a coupon was claimed outside its campaign's time", Id::Coupon)],
    },
    Break {
        by: &[(Service::Coupon, "UPDATE coupons SET user_id = {b} WHERE id = {coupon}")],
        mended_by: &[(Service::Coupon, "UPDATE coupons SET user_id = {user} WHERE id = {coupon}")],
        named: &[(2, "an order has somebody else's coupon, or one of another event", Id::Order)],
    },
    Break {
        by: &[
            (Service::Order, "INSERT INTO orders (id, user_id, event_id, request_id, request_fingerprint, state, version, currency, subtotal_minor, discount_minor, total_minor, coupon_id, arrival, payment_attempts, pay_deadline_us, fulfilled_at_us, created_us, updated_us) SELECT {a}, user_id, event_id, request_id, request_fingerprint, state, version, currency, subtotal_minor, discount_minor, total_minor, coupon_id, arrival, payment_attempts, pay_deadline_us, fulfilled_at_us, created_us, updated_us FROM orders WHERE id = {order}"),
        ],
        mended_by: &[(Service::Order, "DELETE FROM orders WHERE id = {a}")],
        named: &[
            (2, "a coupon is used for an order, but another order has it", Id::Coupon),
            (4, "an order without lines", Id::MadeUpOrder(0xAA)),
            (5, "an order was fulfilled with a coupon that is not used up", Id::MadeUpOrder(0xAA)),
            (8, "two orders of one event with one place of arrival", Id::Event),
        ],
    },
    // 4. Durability.
    Break {
        by: &[
            (Service::Order, "CREATE TABLE kept AS SELECT id, line_list FROM orders WHERE id = {order}"),
            (Service::Order, "UPDATE orders SET line_list = 'no JSON' WHERE id = {order}"),
        ],
        mended_by: RESTORE_LINES,
        named: &[(4, "an order without lines", Id::Order)],
    },
    Break {
        by: &[
            (Service::Coupon, "CREATE TABLE kept AS SELECT * FROM coupons"),
            (Service::Coupon, "DELETE FROM coupons WHERE id = {coupon}"),
        ],
        mended_by: &[(Service::Coupon, "INSERT INTO coupons SELECT * FROM kept"), (Service::Coupon, "DROP TABLE kept")],
        named: &[(4, "a claim was ranked, but its coupon is not stored", Id::Campaign)],
    },
    Break {
        by: &[
            (Service::Order, "INSERT INTO outbox (partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us) VALUES (0, 'order', 'ord_lost', 1, 'stampede.message.v1.OrderExpired', '', {now})"),
            (Service::Order, "UPDATE outbox_leases SET floor_id = COALESCE(floor_id, 0) + 1000000"),
        ],
        mended_by: &[
            (Service::Order, "DELETE FROM outbox WHERE aggregateid = 'ord_lost'"),
            (Service::Order, "UPDATE outbox_leases SET floor_id = floor_id - 1000000"),
        ],
        named: &[(4, "a message of order was sent, but is not in Kafka", Id::Text("ord_lost"))],
    },
    // 5. Every order ends.
    Break {
        by: &[(Service::Order, "UPDATE orders SET state = 'PAYING' WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET state = 'FULFILLED' WHERE id = {order}")],
        named: &[(5, "an order that does not move on", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET state = 'AWAITING_PAYMENT', pay_deadline_us = {now} - 60000000 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET state = 'FULFILLED', pay_deadline_us = {now} WHERE id = {order}")],
        named: &[(5, "an order that does not move on", Id::Order), (5, "an order goes on, but its coupon is not held for it", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET state = 'AWAITING_PAYMENT', pay_deadline_us = NULL WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET state = 'FULFILLED', pay_deadline_us = {now} WHERE id = {order}")],
        named: &[(5, "an order in a state that cannot be", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET state = 'MISLAID' WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET state = 'FULFILLED' WHERE id = {order}")],
        named: &[(5, "an order in a state that cannot be", Id::Order)],
    },
    Break {
        by: &[(Service::Payment, "UPDATE attempts SET state = 'UNKNOWN' WHERE payment_id = {payment}")],
        mended_by: &[(Service::Payment, "UPDATE attempts SET state = 'APPROVED' WHERE payment_id = {payment}")],
        named: &[(5, "a payment that does not move on", Id::Payment)],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE ledger SET state = 'RELEASED' WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "UPDATE ledger SET state = 'COMMITTED' WHERE order_id = {order}")],
        named: &[(5, "an order goes on, but its units are not in the ledger", Id::Order)],
    },
    Break {
        by: &[(Service::Inventory, "INSERT INTO reservations VALUES ({order}, {now} - 90000000)")],
        mended_by: &[(Service::Inventory, "DELETE FROM reservations WHERE order_id = {order}")],
        named: &[(5, "a reservation was neither confirmed nor given back", Id::Order)],
    },
    // An order as an earlier release has left it, with rows for its lines and none for its goods.
    Break {
        by: AS_BEFORE,
        mended_by: NOT_AS_BEFORE,
        named: &[
            (5, "paid, but the goods are not what was bought", Id::Order),
            (5, "paid, but the gift is not what was promised", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Order, "INSERT INTO goods VALUES ({order}, {item}, 'X', 1, 0)")],
        mended_by: &[(Service::Order, "DELETE FROM goods")],
        named: &[(5, "goods that were not bought", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "INSERT INTO goods VALUES ({order}, {d}, 'ITEM', 1, 0)")],
        mended_by: &[(Service::Order, "DELETE FROM goods WHERE item_id = {d}")],
        named: &[(5, "goods that were not bought", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "INSERT INTO goods VALUES ({a}, {item}, 'ITEM', 1, 0)")],
        mended_by: &[(Service::Order, "DELETE FROM goods")],
        named: &[(5, "goods without payment", Id::MadeUpOrder(0xAA))],
    },
    Break {
        by: &[(Service::Coupon, "UPDATE coupons SET state = 'ISSUED', order_id = NULL WHERE id = {coupon}")],
        mended_by: &[(Service::Coupon, "UPDATE coupons SET state = 'USED', order_id = {order} WHERE id = {coupon}")],
        named: &[(5, "an order was fulfilled with a coupon that is not used up", Id::Order)],
    },
    // 6. Events.
    Break {
        by: &[(Service::Event, "UPDATE events SET opens_at_us = opens_at_us + 60000000 WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET opens_at_us = opens_at_us - 60000000 WHERE id = {event}")],
        named: &[
            (6, "an event opened early", Id::Event),
            (6, "an event could be seen to turn before its time, by the clock of the database", Id::Event),
            (6, "an order was taken before the event opened", Id::Order),
        ],
    },
    // As if it had opened by a clock two seconds ahead, which its own timestamps do not show.
    Break {
        by: &[(Service::Event, "UPDATE events SET opened_seen_us = opens_at_us - 2000000 WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET opened_seen_us = opened_at_us WHERE id = {event}")],
        named: &[(6, "an event could be seen to turn before its time, by the clock of the database", Id::Event)],
    },
    // As if its commit had taken a minute.
    Break {
        by: &[(Service::Event, "UPDATE events SET opened_seen_us = opened_at_us + 60000000 WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET opened_seen_us = opened_at_us WHERE id = {event}")],
        named: &[(6, "events are later than 5000 ms (p99)", Id::Text(""))],
    },
    Break {
        by: &[(Service::Event, "UPDATE events SET state = 'CLOSED', closed_at_us = closes_at_us - 1, due_at_us = NULL WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET state = 'OPEN', closed_at_us = NULL, due_at_us = closes_at_us WHERE id = {event}")],
        named: &[(6, "an event closed early", Id::Event), (6, "an event was not published exactly once as EventClosed", Id::Event)],
    },
    // The same of one that was cancelled when its time was over.
    Break {
        by: &[(Service::Event, "UPDATE events SET state = 'CANCELLED', closed_before_cancel_us = closes_at_us - 1, closed_at_us = closes_at_us, due_at_us = NULL WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET state = 'OPEN', closed_before_cancel_us = NULL, closed_at_us = NULL, due_at_us = closes_at_us WHERE id = {event}")],
        named: &[
            (6, "an event closed early", Id::Event),
            (6, "an event was not published exactly once as EventClosed", Id::Event),
            (6, "an event was not published exactly once as EventCancelled", Id::Event),
        ],
    },
    // As if an earlier release had cancelled it after its close, of which only the first observation is left: too late.
    Break {
        by: &[(Service::Event, "UPDATE events SET state = 'CANCELLED', closed_seen_us = closes_at_us + 60000000, closed_at_us = closes_at_us + 60000000, due_at_us = NULL WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET state = 'OPEN', closed_seen_us = NULL, closed_at_us = NULL, due_at_us = closes_at_us WHERE id = {event}")],
        named: &[
            (6, "an event was not published exactly once as EventClosed", Id::Event),
            (6, "an event was not published exactly once as EventCancelled", Id::Event),
            (6, "events are later than 5000 ms (p99)", Id::Text("")),
        ],
    },
    Break {
        by: &[(Service::Event, "UPDATE events SET state = 'CANCELLED', closed_at_us = opens_at_us - 60000000, due_at_us = NULL WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET state = 'OPEN', closed_at_us = NULL, due_at_us = closes_at_us WHERE id = {event}")],
        named: &[(6, "an order was taken over 40 s after the event was cancelled", Id::Order)],
    },
    Break {
        by: &[
            (Service::Event, "UPDATE events SET state = 'CANCELLED', closed_at_us = closes_at_us + 604800000000, due_at_us = NULL WHERE id = {event}"),
            (Service::Order, "UPDATE orders SET created_us = created_us + 86400000000 WHERE id = {order}"),
        ],
        mended_by: &[
            (Service::Event, "UPDATE events SET state = 'OPEN', closed_at_us = NULL, due_at_us = closes_at_us WHERE id = {event}"),
            (Service::Order, "UPDATE orders SET created_us = created_us - 86400000000 WHERE id = {order}"),
        ],
        named: &[(6, "an order was taken over 40 s after the event closed", Id::Order)],
    },
    Break {
        by: &[(Service::Event, "UPDATE events SET due_at_us = 1 WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET due_at_us = closes_at_us WHERE id = {event}")],
        named: &[(6, "an event is over its time and has not moved", Id::Event)],
    },
    Break {
        by: &[(Service::Event, "UPDATE events SET due_at_us = NULL WHERE id = {event}")],
        mended_by: &[(Service::Event, "UPDATE events SET due_at_us = closes_at_us WHERE id = {event}")],
        named: &[(6, "an event in a state that cannot be", Id::Event)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET event_id = {d} WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET event_id = {event} WHERE id = {order}")],
        named: &[(6, "an order of an event that does not exist", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET created_us = created_us + 86400000000 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET created_us = created_us - 86400000000 WHERE id = {order}")],
        named: &[(6, "an order was taken over 40 s after the event closed", Id::Order)],
    },
    Break {
        by: &[(Service::Event, "UPDATE outbox SET type = 'stampede.message.v1.Other' WHERE type = 'stampede.message.v1.EventOpened'")],
        mended_by: &[(Service::Event, "UPDATE outbox SET type = 'stampede.message.v1.EventOpened' WHERE type = 'stampede.message.v1.Other'")],
        named: &[(6, "an event was not published exactly once as EventOpened", Id::Event)],
    },
    Break {
        by: &[(Service::Order, "INSERT INTO cancelled_events (event_id, event_version, refund_paid_orders, cancel_us, received_us, is_whole, settled_us) VALUES ({event}, 99, TRUE, {now}, {now}, TRUE, {now})")],
        mended_by: &[(Service::Order, "DELETE FROM cancelled_events")],
        named: &[
            (5, "an order of a cancelled event has not ended with it", Id::Order),
            (5, "the orders of a cancelled event are to be treated otherwise than the event says", Id::Event),
        ],
    },
    // 8. The order of arrival.
    Break {
        by: &[(Service::Order, "UPDATE orders SET arrival = 0 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET arrival = 1 WHERE id = {order}")],
        named: &[(8, "an order without a place of arrival", Id::Order), (8, "the ledger has another place of arrival than the order", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET arrival = 99 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET arrival = 1 WHERE id = {order}")],
        named: &[(8, "Redis would give a place of arrival again", Id::Event)],
    },
];
