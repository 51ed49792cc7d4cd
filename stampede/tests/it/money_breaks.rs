//! Ways to break promise 3, of money, by hand in the databases, and the breach that the audit has to report for each.

use crate::breaks::{Break, Id};
use stampede_testkit::Service;

#[rustfmt::skip]
pub const MONEY_BREAKS: &[Break] = &[
    Break {
        by: &[(Service::Order, "UPDATE orders SET line_list = JSON_SET(line_list, '$[0].price', CAST(JSON_EXTRACT(line_list, '$[0].price') AS SIGNED) + 1) WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET line_list = JSON_SET(line_list, '$[0].price', CAST(JSON_EXTRACT(line_list, '$[0].price') AS SIGNED) - 1) WHERE id = {order}")],
        named: &[
            (3, "an order line has another price than the stock", Id::Order),
            (3, "an order's sums are not those of its lines and its coupon", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET discount_minor = 0, total_minor = subtotal_minor WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET discount_minor = 1000, total_minor = subtotal_minor - 1000 WHERE id = {order}")],
        named: &[
            (3, "an order's sums are not those of its lines and its coupon", Id::Order),
            (3, "goods for another sum than was captured", Id::Order),
        ],
    },
    Break {
        by: &[(Service::Payment, "UPDATE payments SET amount_minor = amount_minor + 1 WHERE order_id = {order}")],
        mended_by: &[(Service::Payment, "UPDATE payments SET amount_minor = amount_minor - 1 WHERE order_id = {order}")],
        named: &[(3, "a payment of another sum than its order's total", Id::Payment)],
    },
    Break {
        by: &[(Service::Inventory, "UPDATE ledger SET order_id = {c} WHERE order_id = {order}")],
        mended_by: &[(Service::Inventory, "UPDATE ledger SET order_id = {order} WHERE order_id = {c}")],
        named: &[
            (3, "charged for units that the ledger never committed", Id::Order),
            (4, "a ledger row of an order that does not exist", Id::MadeUpOrder(0xCC)),
        ],
    },
    // A refund that is only requested does not undo the second charge.
    Break {
        by: &[
            (Service::Payment, "CREATE TABLE kept AS SELECT * FROM attempts WHERE payment_id = {payment}"),
            (Service::Payment, "UPDATE kept SET attempt = 2"),
            (Service::Payment, "INSERT INTO attempts SELECT * FROM kept"),
            (Service::Payment, "INSERT INTO refunds (payment_id, attempt, state, currency, amount_minor, checks, created_us, updated_us) VALUES ({payment}, 2, 'REQUESTED', 'EUR', 2998, 0, 0, 0)"),
        ],
        mended_by: &[
            (Service::Payment, "DELETE FROM attempts WHERE attempt = 2"),
            (Service::Payment, "DELETE FROM refunds WHERE attempt = 2"),
            (Service::Payment, "DROP TABLE kept"),
        ],
        named: &[(3, "charged twice", Id::Payment), (5, "a payment that does not move on", Id::Payment)],
    },
    Break {
        by: &[(Service::Payment, "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, found_us) VALUES ({payment}, 1, 'REFUND', 'REFUNDED_ELSEWHERE', 'x', 0)")],
        mended_by: &[(Service::Payment, "DELETE FROM anomalies")],
        named: &[(3, "an anomaly that nobody has settled", Id::Payment)],
    },
    // A refund that is done does not undo it either: the buyer was charged twice.
    Break {
        by: &[(Service::Payment, "INSERT INTO refunds (payment_id, attempt, state, currency, amount_minor, checks, created_us, updated_us) VALUES ({payment}, 2, 'REFUNDED', 'EUR', 2998, 0, 0, 0)")],
        mended_by: &[(Service::Payment, "DELETE FROM refunds WHERE attempt = 2")],
        named: &[(3, "charged twice", Id::Payment)],
    },
    // A capture that an operator had declined, and that is not refunded yet.
    Break {
        by: &[
            (Service::Payment, "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, state, verdict, found_us) VALUES ({payment}, 2, 'CHARGE', 'NO_ANSWER', 'x', 'SETTLED', 'DECLINED', 0)"),
            (Service::Payment, "INSERT INTO refunds (payment_id, attempt, state, currency, amount_minor, checks, created_us, updated_us) VALUES ({payment}, 2, 'PARKED', 'EUR', 2998, 0, 0, 0)"),
        ],
        mended_by: &[(Service::Payment, "DELETE FROM refunds WHERE attempt = 2"), (Service::Payment, "DELETE FROM anomalies")],
        named: &[(3, "captured after an operator had declined it, and not refunded", Id::Payment)],
    },
    Break {
        by: &[
            (Service::Payment, "CREATE TABLE kept AS SELECT * FROM payments WHERE order_id = {order}"),
            (Service::Payment, "UPDATE kept SET id = {a}"),
            (Service::Payment, "INSERT INTO payments SELECT * FROM kept"),
        ],
        mended_by: &[(Service::Payment, "DELETE FROM payments WHERE id = {a}"), (Service::Payment, "DROP TABLE kept")],
        named: &[(3, "a payment is not the one of its order", Id::Order)],
    },
    Break {
        by: &[(Service::Payment, "UPDATE attempts SET state = 'DECLINED' WHERE payment_id = {payment}")],
        mended_by: &[(Service::Payment, "UPDATE attempts SET state = 'APPROVED' WHERE payment_id = {payment}")],
        named: &[(3, "captured by an attempt that was not approved", Id::Payment)],
    },
    Break {
        by: &[(Service::Payment, "UPDATE payments SET refunded_minor = captured_minor + 1 WHERE order_id = {order}")],
        mended_by: &[(Service::Payment, "UPDATE payments SET refunded_minor = 0 WHERE order_id = {order}")],
        named: &[
            (3, "refunded more than was captured", Id::Payment),
            (3, "written down as refunded, but the refund was not done", Id::Payment),
        ],
    },
    Break {
        by: &[(Service::Payment, "UPDATE payments SET captured_minor = captured_minor - 1 WHERE order_id = {order}")],
        mended_by: &[(Service::Payment, "UPDATE payments SET captured_minor = captured_minor + 1 WHERE order_id = {order}")],
        named: &[
            (3, "goods for another sum than was captured", Id::Order),
            (3, "the provider moved another sum than we did", Id::Payment),
        ],
    },
    Break {
        by: &[(Service::Payment, "UPDATE payments SET state = 'OPEN', captured_minor = 0, captured_attempt = NULL WHERE order_id = {order}")],
        mended_by: &[(Service::Payment, "UPDATE payments SET state = 'CAPTURED', captured_minor = amount_minor, captured_attempt = 1 WHERE order_id = {order}")],
        named: &[(3, "the provider charged more often than we know of", Id::Payment)],
    },
    Break {
        by: &[
            (Service::Payment, "CREATE TABLE kept AS SELECT * FROM payments WHERE order_id = {order}"),
            (Service::Payment, "DELETE FROM payments WHERE order_id = {order}"),
        ],
        mended_by: &[(Service::Payment, "INSERT INTO payments SELECT * FROM kept"), (Service::Payment, "DROP TABLE kept")],
        named: &[(3, "the provider charged for a payment that we do not know", Id::Payment)],
    },
    Break {
        by: &[
            (Service::Payment, "CREATE TABLE kept AS SELECT * FROM payments WHERE order_id = {order}"),
            (Service::Payment, "UPDATE kept SET id = {a}, order_id = {b}"),
            (Service::Payment, "INSERT INTO payments SELECT * FROM kept"),
        ],
        mended_by: &[(Service::Payment, "DELETE FROM payments WHERE id = {a}"), (Service::Payment, "DROP TABLE kept")],
        named: &[
            (3, "the provider has no charge of a captured payment", Id::MadeUpPayment(0xAA)),
            (4, "a payment of an order that does not exist", Id::MadeUpOrder(0xBB)),
        ],
    },
    Break {
        by: &[(Service::Order, "UPDATE orders SET state = 'CANCELLED' WHERE id = {order}")],
        mended_by: &[(Service::Order, "UPDATE orders SET state = 'FULFILLED' WHERE id = {order}")],
        named: &[
            (3, "paid, but neither goods nor the money back", Id::Order),
            (5, "an order has ended, but its units are still taken", Id::Order),
            (5, "a coupon is kept by an order that has ended without it", Id::Coupon),
        ],
    },
];
