//! Promise 2: the owners of coupons, and the orders that use them.

use super::{
    Check,
    Table::{Coupons, Orders},
};

pub const CHECKS: &[Check] = &[
    Check {
        promise: 2,
        what: "more coupons than the quota",
        over: None,
        sql: "SELECT 'cmp' AS kind, c.id AS id, CONCAT(COUNT(*), ' of ', c.quota) AS detail FROM {coupon}.campaigns c \
              JOIN {coupon}.coupons p ON p.campaign_id = c.id GROUP BY c.id, c.quota HAVING COUNT(*) > c.quota",
    },
    Check {
        promise: 2,
        what: "a coupon of a campaign that does not exist",
        over: Some(Coupons),
        sql: "SELECT 'cpn' AS kind, p.id AS id, '' AS detail FROM {coupon}.coupons p \
              LEFT JOIN {coupon}.campaigns c ON c.id = p.campaign_id WHERE p.id {page} AND c.id IS NULL",
    },
    Check {
        promise: 2,
        what: "a rank outside the quota",
        over: Some(Coupons),
        sql: "SELECT 'cpn' AS kind, p.id AS id, CONCAT('rank ', p.rank_no, ' of ', c.quota) AS detail FROM {coupon}.coupons p \
              JOIN {coupon}.campaigns c ON c.id = p.campaign_id WHERE p.id {page} AND p.rank_no NOT BETWEEN 1 AND c.quota",
    },
    Check {
        promise: 2,
        what: "a rank given twice",
        over: None,
        sql: "SELECT 'cmp' AS kind, campaign_id AS id, CONCAT('rank ', rank_no, ' ', COUNT(*), ' times') AS detail \
              FROM {coupon}.coupons GROUP BY campaign_id, rank_no HAVING COUNT(*) > 1",
    },
    Check {
        promise: 2,
        what: "two coupons of one campaign for one user",
        over: None,
        sql: "SELECT 'cmp' AS kind, campaign_id AS id, CONCAT('user ', LOWER(HEX(user_id)), ' has ', COUNT(*)) AS detail \
              FROM {coupon}.coupons GROUP BY campaign_id, user_id HAVING COUNT(*) > 1",
    },
    // Both times are from the clock of Redis and the window staged there, so there is no tolerance.
    Check {
        promise: 2,
        what: "a coupon was claimed outside its campaign's time",
        over: Some(Coupons),
        sql: "SELECT 'cpn' AS kind, p.id AS id, CASE WHEN p.created_us < c.opens_at_us THEN CONCAT(c.opens_at_us - p.created_us, ' us early') \
              ELSE CONCAT(p.created_us - c.closes_at_us, ' us late') END AS detail FROM {coupon}.coupons p \
              JOIN {coupon}.campaigns c ON c.id = p.campaign_id \
              WHERE p.id {page} AND (p.created_us < c.opens_at_us OR p.created_us >= c.closes_at_us)",
    },
    Check {
        promise: 2,
        what: "an order has somebody else's coupon, or one of another event",
        over: Some(Orders),
        sql: "SELECT 'ord' AS kind, o.id AS id, CONCAT('coupon of buyer ', LOWER(HEX(p.user_id))) AS detail FROM {order}.orders o \
              STRAIGHT_JOIN {coupon}.coupons p ON p.id = o.coupon_id STRAIGHT_JOIN {coupon}.campaigns c ON c.id = p.campaign_id \
              WHERE o.id {page} AND (p.user_id <> o.user_id OR (c.event_id IS NOT NULL AND c.event_id <> o.event_id))",
    },
    // An order with a nonexistent coupon is found by the check of states. If neither check finds anything, no coupon is
    // used for two orders.
    Check {
        promise: 2,
        what: "a coupon is used for an order, but another order has it",
        over: Some(Orders),
        sql: "SELECT 'cpn' AS kind, p.id AS id, CONCAT('used for order ', LOWER(HEX(o.id)), ', had by ', LOWER(HEX(p.order_id))) AS detail \
              FROM {order}.orders o STRAIGHT_JOIN {coupon}.coupons p ON p.id = o.coupon_id WHERE o.id {page} \
              AND o.state NOT IN ('REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDING', 'REFUNDED') AND p.order_id <> o.id",
    },
];
