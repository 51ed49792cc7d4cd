//! Ways to break the messages in the schemas by hand, and the breach that the audit has to report for each.

use crate::breaks::{Break, Id};
use stampede_testkit::Service;

/// Keeps the outbox of order as it is.
const KEEP: (Service, &str) = (Service::Order, "CREATE TABLE kept AS SELECT * FROM outbox");
const PUT_BACK: &[(Service, &str)] = &[
    (Service::Order, "DELETE FROM outbox"),
    (Service::Order, "INSERT INTO outbox SELECT * FROM kept"),
    (Service::Order, "DROP TABLE kept"),
];

/// A letter of a message that is on no topic.
pub const LETTER: &str = "INSERT INTO dead_letters (consumer, topic, partition_no, record_offset, message_key, source, message_id, message_type, headers, payload, reason, kind, set_aside_us) VALUES ('payment', '{topics}.order', 0, 1000000, 'ord_letter', '/stampede/order', 'x', 'x', '[]', '', 'x', 'POISON', 0)";

#[rustfmt::skip]
pub const MESSAGE_BREAKS: &[Break] = &[
    // Sent.
    Break {
        by: &[(Service::Order, "INSERT INTO outbox (partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us) VALUES (0, 'order', 'ord_unsent', 1, 'x', '', {now})")],
        mended_by: &[(Service::Order, "DELETE FROM outbox WHERE aggregateid = 'ord_unsent'")],
        named: &[(7, "a message of order was never sent", Id::Text("ord_unsent"))],
    },
    // The same in Kafka.
    Break {
        by: &[KEEP, (Service::Order, "UPDATE outbox SET aggregateid = 'ord_other' WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[(7, "a message of order is another in Kafka than in the outbox", Id::Text("ord_other"))],
    },
    Break {
        by: &[KEEP, (Service::Order, "UPDATE outbox SET type = 'stampede.message.v1.OrderExpired' WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[
            (7, "a message of order is another in Kafka than in the outbox", Id::Order),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    Break {
        by: &[KEEP, (Service::Order, "UPDATE outbox SET aggregate_version = 9 WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[
            (7, "a message of order is another in Kafka than in the outbox", Id::Order),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    Break {
        by: &[KEEP, (Service::Order, "UPDATE outbox SET payload = CONCAT(payload, 'x') WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[(7, "a message of order is another in Kafka than in the outbox", Id::Order)],
    },
    // From nowhere.
    Break {
        by: &[KEEP, (Service::Order, "DELETE FROM outbox WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[
            (7, "a message on order is in no outbox", Id::Order),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    // One id, one message.
    Break {
        by: &[KEEP, (Service::Order, "INSERT INTO outbox (message_id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us) SELECT message_id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us FROM kept WHERE type = 'stampede.message.v1.OrderPlaced'")],
        mended_by: PUT_BACK,
        named: &[
            (7, "two messages of order have one id", Id::Order),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    // Each state of an order has its messages.
    Break {
        by: &[KEEP, (Service::Order, "UPDATE outbox SET aggregateid = CONCAT('ord_', REPEAT('0', 26)) WHERE type = 'stampede.message.v1.OrderFulfilled'")],
        mended_by: PUT_BACK,
        named: &[
            (4, "messages of an order that does not exist", Id::Text("ord_00000000000000000000000000")),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET version = version + 1 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET version = version - 1 WHERE id = {order}")],
        named: &[(7, "an order's states and its messages are not the same", Id::Order)],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET payment_attempts = 2 WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET payment_attempts = 1 WHERE id = {order}")],
        named: &[
            (4, "an order was paid for another number of times than it asked", Id::Order),
            (7, "an order's states and its messages are not the same", Id::Order),
        ],
    },
    // Applied.
    Break {
        by: &[(Service::Payment, LETTER)],
        mended_by: &[(Service::Payment, "DELETE FROM dead_letters")],
        named: &[(7, "a message of order could not be applied by payment", Id::Text("ord_letter"))],
    },
    Break {
        by: &[(Service::Inventory, "INSERT INTO inbox_parked VALUES ('t', 'ord_parked', 0, 0)")],
        mended_by: &[(Service::Inventory, "DELETE FROM inbox_parked")],
        named: &[(7, "messages are set aside behind a dead letter in inventory", Id::Text("ord_parked"))],
    },
    // The same by the provider.
    Break {
        by: &[(Service::Payment, "UPDATE payments SET currency = 'USD' WHERE id = {payment}")],
        mended_by: &[(Service::Payment, "UPDATE payments SET currency = 'EUR' WHERE id = {payment}")],
        named: &[(3, "the provider charged in another currency than we did", Id::Payment)],
    },
];

/// A message without its effect: the state that it must have changed is reset by hand.
pub struct WithoutEffect {
    /// Its reader and its name.
    pub message: (Service, &'static str),
    /// The owner of its key, by the name in SQL.
    pub key: &'static str,
    pub by: &'static str,
    pub mended_by: &'static str,
}

/// The breaks of each round, which can be made at once. `{event}` is the open event, `{cancelled_event}` a cancelled
/// one; each order is named by its end, as are its payment and its coupon.
#[rustfmt::skip]
pub const WITHOUT_EFFECT: &[&[WithoutEffect]] = &[
    &[
        WithoutEffect {
            message: (Service::Payment, "PaymentRequested"), key: "{late}",
            by: "UPDATE attempts SET attempt = 9 WHERE payment_id = {late_payment}",
            mended_by: "UPDATE attempts SET attempt = 1 WHERE payment_id = {late_payment}",
        },
        WithoutEffect {
            message: (Service::Payment, "RefundRequested"), key: "{refunded}",
            by: "UPDATE payments SET state = 'CAPTURED' WHERE id = {refunded_payment}",
            mended_by: "UPDATE payments SET state = 'REFUNDED' WHERE id = {refunded_payment}",
        },
        WithoutEffect {
            message: (Service::Payment, "OrderCancelled"), key: "{cancelled}",
            by: "INSERT INTO attempts (payment_id, attempt, state, payment_method, checks, created_us, updated_us) VALUES ({cancelled_payment}, 1, 'REQUESTED', 'x', 0, 0, 0)",
            mended_by: "DELETE FROM attempts WHERE payment_id = {cancelled_payment}",
        },
        WithoutEffect {
            message: (Service::Order, "PaymentApproved"), key: "{declined_payment}",
            by: "UPDATE orders SET state = 'CANCELLED' WHERE id = {declined}",
            mended_by: "UPDATE orders SET state = 'FULFILLED' WHERE id = {declined}",
        },
        WithoutEffect {
            message: (Service::Order, "PaymentRefunded"), key: "{refunded_payment}",
            by: "UPDATE orders SET state = 'REFUNDING' WHERE id = {refunded}",
            mended_by: "UPDATE orders SET state = 'REFUNDED' WHERE id = {refunded}",
        },
        WithoutEffect {
            message: (Service::Order, "StockCommitted"), key: "{late}",
            by: "UPDATE orders SET state = 'PAID' WHERE id = {late}",
            mended_by: "UPDATE orders SET state = 'FULFILLED' WHERE id = {late}",
        },
        WithoutEffect {
            message: (Service::Order, "StockRejected"), key: "{rejected}",
            by: "UPDATE orders SET state = 'PAID' WHERE id = {rejected}",
            mended_by: "UPDATE orders SET state = 'REFUNDED' WHERE id = {rejected}",
        },
        WithoutEffect {
            message: (Service::Inventory, "EventScheduled"), key: "{event}",
            by: "UPDATE stock SET event_version = event_version - 1 WHERE event_id = {event}",
            mended_by: "UPDATE stock SET event_version = event_version + 1 WHERE event_id = {event}",
        },
        WithoutEffect {
            message: (Service::Inventory, "EventCancelled"), key: "{cancelled_event}",
            by: "UPDATE stock SET closes_at_us = closes_at_us + 1 WHERE event_id = {cancelled_event}",
            mended_by: "UPDATE stock SET closes_at_us = closes_at_us - 1 WHERE event_id = {cancelled_event}",
        },
        WithoutEffect {
            message: (Service::Order, "EventCancelled"), key: "{cancelled_event}",
            by: "UPDATE cancelled_events SET event_version = event_version - 1 WHERE event_id = {cancelled_event}",
            mended_by: "UPDATE cancelled_events SET event_version = event_version + 1 WHERE event_id = {cancelled_event}",
        },
        WithoutEffect {
            message: (Service::Inventory, "OrderCancelled"), key: "{cancelled}",
            by: "UPDATE ledger SET state = 'COMMITTED' WHERE order_id = {cancelled}",
            mended_by: "UPDATE ledger SET state = 'RELEASED' WHERE order_id = {cancelled}",
        },
        WithoutEffect {
            message: (Service::Inventory, "OrderRefunded"), key: "{refunded}",
            by: "UPDATE ledger SET state = 'COMMITTED' WHERE order_id = {refunded}",
            mended_by: "UPDATE ledger SET state = 'RELEASED' WHERE order_id = {refunded}",
        },
        WithoutEffect {
            message: (Service::Inventory, "OrderExpired"), key: "{expired}",
            by: "UPDATE ledger SET state = 'COMMITTED' WHERE order_id = {expired}",
            mended_by: "UPDATE ledger SET state = 'RELEASED' WHERE order_id = {expired}",
        },
        WithoutEffect {
            message: (Service::Inventory, "OrderPaidLate"), key: "{late}",
            by: "UPDATE ledger SET state = 'RELEASED' WHERE order_id = {late}",
            mended_by: "UPDATE ledger SET state = 'COMMITTED' WHERE order_id = {late}",
        },
        WithoutEffect {
            message: (Service::Coupon, "OrderFulfilled"), key: "{declined}",
            by: "UPDATE coupons SET state = 'ISSUED', order_id = NULL WHERE id = {declined_coupon}",
            mended_by: "UPDATE coupons SET state = 'USED', order_id = {declined} WHERE id = {declined_coupon}",
        },
        WithoutEffect {
            message: (Service::Coupon, "OrderCancelled"), key: "{cancelled}",
            by: "UPDATE coupons SET state = 'USED', order_id = {cancelled} WHERE id = {cancelled_coupon}",
            mended_by: "UPDATE coupons SET state = 'ISSUED', order_id = NULL WHERE id = {cancelled_coupon}",
        },
        WithoutEffect {
            message: (Service::Coupon, "OrderExpired"), key: "{expired}",
            by: "UPDATE coupons SET state = 'USED', order_id = {expired} WHERE id = {expired_coupon}",
            mended_by: "UPDATE coupons SET state = 'ISSUED', order_id = NULL WHERE id = {expired_coupon}",
        },
        WithoutEffect {
            message: (Service::Coupon, "OrderRefunded"), key: "{refunded}",
            by: "UPDATE coupons SET state = 'USED', order_id = {refunded} WHERE id = {refunded_coupon}",
            mended_by: "UPDATE coupons SET state = 'ISSUED', order_id = NULL WHERE id = {refunded_coupon}",
        },
    ],
    &[
        WithoutEffect {
            message: (Service::Payment, "OrderExpired"), key: "{late}",
            by: "UPDATE attempts SET state = 'REQUESTED' WHERE payment_id = {late_payment}",
            mended_by: "UPDATE attempts SET state = 'APPROVED' WHERE payment_id = {late_payment}",
        },
        WithoutEffect {
            message: (Service::Order, "PaymentDeclined"), key: "{declined_payment}",
            by: "UPDATE orders SET state = 'AWAITING_PAYMENT', last_decline = NULL WHERE id = {declined}",
            mended_by: "UPDATE orders SET state = 'FULFILLED', last_decline = 'card_declined' WHERE id = {declined}",
        },
    ],
    &[
        WithoutEffect {
            message: (Service::Order, "PaymentDeclined"), key: "{declined_payment}",
            by: "UPDATE orders SET state = 'CANCELLED', last_decline = NULL, payment_attempts = 1 WHERE id = {declined}",
            mended_by: "UPDATE orders SET state = 'FULFILLED', last_decline = 'card_declined', payment_attempts = 2 WHERE id = {declined}",
        },
    ],
];
