//! Limits that more than one service has to keep, or a promise of one would be broken by another.

use std::time::Duration;

/// Most characters of the token of a card or wallet: what order takes, payment must be able to store.
pub const MAX_PAYMENT_METHOD_CHARS: usize = 255;

/// How long an order may take from its arrival to its row, in milliseconds, by default.
/// Later it is not written any more, so what is set aside for it may be given back.
pub const DEFAULT_ORDER_WRITE_LIMIT_MS: u64 = 8_000;

/// The least age at which units and a coupon may be given back whose order was never written: half as long again as an
/// order may take, for the commit that began in time and for clocks that do not run alike.
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
