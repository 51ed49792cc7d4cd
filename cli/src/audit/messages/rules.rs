//! The effect that each message must have at each consumer, as a rule on the consumer's state. A rule must hold
//! whatever came later: an order that was cancelled may have been refunded since.

use prost::Name;
use stampede_proto::message::v1 as proto;
use stampede_vocab::Service;

/// The required effect of one message at one service.
pub struct Rule {
    pub reader: Service,
    /// Name of the message within its package.
    pub message: &'static str,
    /// Selects `m.n` of each message without an effect. `{messages}` stands for [`MESSAGES`].
    pub sql: &'static str,
}

/// The messages `m` of one batch, from a parameter in JSON: see `Facts`. Ids are hex, and empty where there is none.
pub const MESSAGES: &str = "JSON_TABLE(?, '$[*]' COLUMNS (n BIGINT PATH '$.n', id VARCHAR(32) PATH '$.id', \
     payment VARCHAR(32) PATH '$.payment', coupon VARCHAR(32) PATH '$.coupon', item VARCHAR(32) PATH '$.item', \
     number BIGINT PATH '$.number', amount BIGINT PATH '$.amount', currency VARCHAR(3) PATH '$.currency', \
     version BIGINT PATH '$.version', opens_us BIGINT PATH '$.opens_us', closes_us BIGINT PATH '$.closes_us')) m";

/// The units of an order that has failed are released.
const UNITS_WENT_BACK: &str = "SELECT DISTINCT m.n FROM {messages} \
     STRAIGHT_JOIN {inventory}.ledger l ON l.order_id = UNHEX(m.id) WHERE l.state = 'COMMITTED'";

/// The coupon of an order that has failed is released.
const COUPON_WENT_BACK: &str = "SELECT m.n FROM {messages} \
     STRAIGHT_JOIN {coupon}.coupons c ON c.id = UNHEX(m.coupon) WHERE c.order_id = UNHEX(m.id)";

/// No charge of an order that has ended is pending.
const CHARGE_STOPPED: &str = "SELECT DISTINCT m.n FROM {messages} \
     STRAIGHT_JOIN {payment}.attempts a ON a.payment_id = UNHEX(m.payment) WHERE a.state = 'REQUESTED'";

/// The order does not wait for the ledger's answer any more.
const ANSWER_HEARD: &str = "SELECT m.n FROM {messages} LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) \
     WHERE o.id IS NULL OR o.state IN ('PENDING', 'PAID')";

pub const RULES: &[Rule] = &[
    Rule {
        reader: Service::Payment,
        message: proto::PaymentRequested::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {payment}.payments p ON p.id = UNHEX(m.payment) \
              LEFT JOIN {payment}.attempts a ON a.payment_id = UNHEX(m.payment) AND a.attempt = m.number \
              WHERE p.id IS NULL OR a.payment_id IS NULL OR p.amount_minor <> m.amount OR HEX(p.currency) <> HEX(m.currency)",
    },
    Rule {
        reader: Service::Payment,
        message: proto::RefundRequested::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {payment}.payments p ON p.id = UNHEX(m.payment) \
              WHERE p.id IS NULL OR p.state NOT IN ('REFUNDING', 'REFUNDED')",
    },
    Rule { reader: Service::Payment, message: proto::OrderExpired::NAME, sql: CHARGE_STOPPED },
    Rule { reader: Service::Payment, message: proto::OrderCancelled::NAME, sql: CHARGE_STOPPED },
    Rule {
        reader: Service::Order,
        message: proto::PaymentApproved::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) \
              WHERE o.id IS NULL OR o.state NOT IN ('PAID', 'FULFILLED', 'REFUNDING', 'REFUNDED')",
    },
    // An order that was cancelled was not being paid, so it has received the result of its last payment. One that has
    // expired may have ended before.
    Rule {
        reader: Service::Order,
        message: proto::PaymentDeclined::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) \
              WHERE o.id IS NULL OR (o.state = 'PAYING' AND o.payment_attempts <= m.number) \
              OR (o.state = 'AWAITING_PAYMENT' AND o.last_decline IS NULL) \
              OR (o.state = 'CANCELLED' AND o.last_decline IS NULL AND o.payment_attempts = m.number)",
    },
    Rule {
        reader: Service::Order,
        message: proto::PaymentRefunded::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) \
              WHERE o.id IS NULL OR o.state <> 'REFUNDED'",
    },
    Rule {
        reader: Service::Order,
        message: proto::EventCancelled::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {order}.cancelled_events c ON c.event_id = UNHEX(m.id) \
              WHERE c.event_id IS NULL OR c.event_version < m.version",
    },
    Rule { reader: Service::Order, message: proto::StockCommitted::NAME, sql: ANSWER_HEARD },
    Rule { reader: Service::Order, message: proto::StockRejected::NAME, sql: ANSWER_HEARD },
    // The stock has the window of the message, unless a later message has moved it.
    Rule {
        reader: Service::Inventory,
        message: proto::EventScheduled::NAME,
        sql: "SELECT DISTINCT m.n FROM {messages} LEFT JOIN {inventory}.stock s ON s.item_id = UNHEX(m.item) \
              WHERE s.item_id IS NULL OR s.event_id <> UNHEX(m.id) OR s.event_version < m.version \
              OR (s.event_version = m.version AND (s.opens_at_us <> m.opens_us OR s.closes_at_us <> m.closes_us))",
    },
    Rule {
        reader: Service::Inventory,
        message: proto::EventCancelled::NAME,
        sql: "SELECT DISTINCT m.n FROM {messages} STRAIGHT_JOIN {inventory}.stock s ON s.event_id = UNHEX(m.id) \
              WHERE s.event_version < m.version OR s.closes_at_us > m.closes_us",
    },
    Rule { reader: Service::Inventory, message: proto::OrderCancelled::NAME, sql: UNITS_WENT_BACK },
    Rule { reader: Service::Inventory, message: proto::OrderRefunded::NAME, sql: UNITS_WENT_BACK },
    // Unless it was paid late: then its units may be committed again.
    Rule {
        reader: Service::Inventory,
        message: proto::OrderExpired::NAME,
        sql: "SELECT DISTINCT m.n FROM {messages} STRAIGHT_JOIN {inventory}.ledger l ON l.order_id = UNHEX(m.id) \
              LEFT JOIN {order}.orders o ON o.id = l.order_id WHERE l.state = 'COMMITTED' \
              AND (o.id IS NULL OR o.state NOT IN ('PAID', 'FULFILLED', 'REFUNDING', 'REFUNDED'))",
    },
    // Either they are committed again, or the order was told that they are not, and refunds the money.
    Rule {
        reader: Service::Inventory,
        message: proto::OrderPaidLate::NAME,
        sql: "SELECT DISTINCT m.n FROM {messages} LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) \
              LEFT JOIN {inventory}.ledger l ON l.order_id = UNHEX(m.id) AND l.state = 'COMMITTED' \
              WHERE l.order_id IS NULL AND (o.id IS NULL OR o.state NOT IN ('REFUNDING', 'REFUNDED'))",
    },
    Rule {
        reader: Service::Coupon,
        message: proto::OrderFulfilled::NAME,
        sql: "SELECT m.n FROM {messages} LEFT JOIN {coupon}.coupons c ON c.id = UNHEX(m.coupon) \
              LEFT JOIN {order}.orders o ON o.id = UNHEX(m.id) WHERE m.coupon <> '' AND (o.id IS NULL OR o.state <> 'REFUNDED') \
              AND (c.id IS NULL OR c.state <> 'USED' OR c.order_id <> UNHEX(m.id))",
    },
    Rule { reader: Service::Coupon, message: proto::OrderCancelled::NAME, sql: COUPON_WENT_BACK },
    Rule { reader: Service::Coupon, message: proto::OrderExpired::NAME, sql: COUPON_WENT_BACK },
    Rule { reader: Service::Coupon, message: proto::OrderRefunded::NAME, sql: COUPON_WENT_BACK },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_service_takes_has_one_rule_and_nothing_else_has() {
        let mut taken: Vec<_> = Service::ALL
            .into_iter()
            .flat_map(|reader| {
                reader.reads().flat_map(move |writer| reader.takes(writer)).map(move |name| (reader, *name))
            })
            .collect();
        let mut ruled: Vec<_> = RULES.iter().map(|rule| (rule.reader, rule.message)).collect();
        taken.sort_unstable();
        ruled.sort_unstable();
        assert_eq!(ruled, taken);
    }

    #[test]
    fn every_rule_is_about_the_messages_of_the_batch() {
        assert!(RULES.iter().all(|rule| rule.sql.contains(" FROM {messages} ")));
    }
}
