//! The file in which a crowd records acknowledged orders and coupons, and by which an audit finds lost ones.

use serde::{Deserialize, Serialize};
use stampede_vocab::{CouponId, OrderId};
use std::collections::{BTreeMap, BTreeSet};

/// The file that `simulate --acknowledged` writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    pub orders: BTreeSet<OrderId>,
    pub coupons: BTreeSet<CouponId>,
    /// The newest state of each order in any answer. An earlier release writes none.
    #[serde(default)]
    pub states: BTreeMap<OrderId, Shown>,
}

/// The state of an order in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Name of the state, such as `FULFILLED`.
    pub state: String,
    /// Grows by one with each transition of the order.
    pub version: i64,
}

impl Shown {
    /// Returns whether an order in this state may be in that one later. Its buyer may rely on a final state; any other
    /// may change, but never to an earlier version.
    pub fn may_become(&self, later: &Self) -> bool {
        if later.version <= self.version {
            return later == self;
        }
        let allowed: &[&str] = match self.state.as_str() {
            "FULFILLED" | "CANCELLED" => &["REFUNDING", "REFUNDED"],
            "EXPIRED" => &["PAID", "FULFILLED", "REFUNDING", "REFUNDED"],
            "PAID" => &["PAID", "FULFILLED", "REFUNDING", "REFUNDED"],
            "REFUNDING" => &["REFUNDING", "REFUNDED"],
            "REFUNDED" => &[],
            _ => return true,
        };
        allowed.contains(&later.state.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: &str, version: i64) -> Shown {
        Shown { state: state.to_owned(), version }
    }

    #[test]
    fn an_order_goes_on_from_what_was_shown_and_never_back() {
        for (before, after, may) in [
            (shown("PAYING", 2), shown("PAYING", 2), true),
            (shown("PAYING", 2), shown("FULFILLED", 3), true),
            (shown("PAYING", 2), shown("AWAITING_PAYMENT", 3), true),
            (shown("PAYING", 2), shown("AWAITING_PAYMENT", 1), false),
            (shown("PAYING", 2), shown("CANCELLED", 2), false),
            (shown("CANCELLED", 2), shown("AWAITING_PAYMENT", 1), false),
            (shown("CANCELLED", 2), shown("EXPIRED", 3), false),
            (shown("CANCELLED", 2), shown("REFUNDED", 4), true),
            (shown("FULFILLED", 3), shown("PAYING", 2), false),
            (shown("FULFILLED", 3), shown("REFUNDING", 4), true),
            (shown("FULFILLED", 3), shown("EXPIRED", 4), false),
            (shown("EXPIRED", 3), shown("FULFILLED", 5), true),
            (shown("REFUNDED", 5), shown("REFUNDED", 6), false),
        ] {
            assert_eq!(before.may_become(&after), may, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_file_of_an_earlier_release_is_read() {
        let old: Acknowledged = serde_json::from_str(r#"{"orders": [], "coupons": []}"#).unwrap();
        assert!(old.states.is_empty());
    }
}
