//! Limits that several services must agree on, and those that the contract publishes as `stampede.type.v1.bounds`,
//! which a test compares.

use std::time::Duration;

/// Most characters of a name or a title: event accepts, and inventory and order must be able to store so many.
pub const MAX_NAME_CHARS: usize = 200;

/// Most items of one event.
pub const MAX_EVENT_ITEMS: usize = 100;

/// Most units of one item, and most gifts of it.
pub const MAX_TOTAL_UNITS: i32 = 10_000_000;

/// Most units of one item for one buyer.
pub const MAX_LIMIT_PER_BUYER: i32 = 1_000;

/// Most coupons of one campaign.
pub const MAX_QUOTA: i32 = 10_000_000;

/// Most events of one watch.
pub const MAX_WATCHED_EVENTS: usize = 100;

/// Most lines of one order.
pub const MAX_ORDER_LINES: usize = 20;

/// Most states of a filter. There are fewer, and duplicates do no harm.
pub const MAX_FILTER_STATES: usize = 16;

/// Most orders, reservations or holds of one call between services.
pub const MAX_PER_CALL: usize = 256;

/// Most characters of the token of a card or wallet: order accepts, and payment must be able to store so many.
pub const MAX_PAYMENT_METHOD_CHARS: usize = 255;

/// Default of the longest time from the arrival of an order to its row, in milliseconds. A later order is not written,
/// so what is reserved for it may be released.
pub const DEFAULT_ORDER_WRITE_LIMIT_MS: u64 = 8_000;

/// Returns the least age at which units and a coupon of an order that was never written may be released: one and a half
/// times the write limit, for a commit that began in time and for clock drift.
pub fn least_unwritten_age(order_write_limit: Duration) -> Duration {
    order_write_limit + order_write_limit / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_outlives_the_time_in_which_its_order_may_be_written() {
        let limit = Duration::from_millis(DEFAULT_ORDER_WRITE_LIMIT_MS);
        assert_eq!(least_unwritten_age(limit), Duration::from_secs(12));
    }
}
