//! The limit of each act, and why: the one place for these numbers.
//!
//! Each is a token bucket: a burst, and one more after each interval. `--act-limits-factor` multiplies all of them. A
//! limit by token is of one user, or of one login where no user is known yet; new users cost nothing, so it only
//! contains mistakes. A limit by address stops an attacker: an IPv4 address or an IPv6 /64, behind which may be a
//! household, an office, or some hundred phones of one provider.

use super::meters::By;
use std::time::Duration;

/// A limited act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A new anonymous buyer.
    Login,
    /// The next pair of tokens, or the end of a login.
    Refresh,
    Claim,
    Order,
    Payment,
    Cancel,
}

/// A token bucket: a burst, and one more after each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub burst: u32,
    pub interval: Duration,
}

/// The limits of one act; `None` for no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rule {
    /// Of one order, for each user by themselves.
    pub by_order: Option<Rate>,
    /// Of one user or login.
    pub by_token: Option<Rate>,
    pub by_address: Option<Rate>,
}

/// Most open orders of a user: neither paid nor cancelled nor expired. Each holds units that nobody else can buy. A
/// person pays one before ordering the next, and five leave room for a retry in several events.
pub const OPEN_BY_TOKEN: u32 = 5;
/// Most open orders of an address: twenty such persons, or a hundred with one each.
pub const OPEN_BY_ADDRESS: u32 = 100;
/// Time for which an unsettled order counts as open where no answer tells its deadline: the default time to pay.
pub const OPEN_FOR: Duration = Duration::from_secs(600);
/// Most time for which an unsettled order counts as open, whatever its deadline: it stays in Redis for so long.
pub const OPEN_AT_MOST: Duration = Duration::from_secs(86_400);
/// Time for which a settled order is remembered at least, so that a late answer to a repeat does not open it again: six
/// times the default time-out of a call. It is never less than two of them. Each costs some 50 bytes for its user and
/// for its address.
pub const SETTLED_FOR: Duration = Duration::from_secs(30);

/// Returns the most open orders of a user or an address.
pub const fn most_open(by: By) -> Option<u32> {
    match by {
        By::Order => None,
        By::Token => Some(OPEN_BY_TOKEN),
        By::Address => Some(OPEN_BY_ADDRESS),
    }
}

impl Rule {
    /// Returns the limit of this kind.
    pub const fn of(&self, by: By) -> Option<Rate> {
        match by {
            By::Order => self.by_order,
            By::Token => self.by_token,
            By::Address => self.by_address,
        }
    }
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Login, Self::Refresh, Self::Claim, Self::Order, Self::Payment, Self::Cancel];

    /// Returns the name in metrics, in answers and in Redis.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Claim => "claim",
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Cancel => "cancel",
        }
    }

    /// Returns the act of a method of a service, by its path; `None` for one that is not limited.
    pub fn of_rpc(grpc_path: &str) -> Option<Self> {
        match grpc_path {
            "/stampede.coupon.v1.CouponService/ClaimCoupon" => Some(Self::Claim),
            "/stampede.order.v1.OrderService/PlaceOrder" => Some(Self::Order),
            "/stampede.order.v1.OrderService/PayOrder" => Some(Self::Payment),
            "/stampede.order.v1.OrderService/CancelOrder" => Some(Self::Cancel),
            _ => None,
        }
    }

    pub const fn rule(self) -> Rule {
        match self {
            // All buyers behind one address log in when a sale is announced. Costs one signature and no memory.
            Self::Login => Rule { by_order: None, by_token: None, by_address: per_minute(300, 300) },
            // A client refreshes once in the life of an access token, a quarter of an hour; ten allow for retries. The
            // first of a login writes a key for a day: ten a second of one address are 200 MB a day, which the limit on
            // memory stops too.
            Self::Refresh => Rule { by_order: None, by_token: per_minute(10, 10), by_address: per_minute(600, 600) },
            // One coupon a campaign, and retries with the same request_id until it is answered.
            Self::Claim => Rule { by_order: None, by_token: per_minute(30, 30), by_address: per_minute(600, 600) },
            // A buyer tries again when units return. The burst is small, since the limit on open orders counts only
            // answered ones.
            Self::Order => Rule { by_order: None, by_token: per_minute(10, 30), by_address: per_minute(300, 600) },
            // Each is a request to the provider, and may test a stolen card. Allows some cards of one person, each with
            // a retry; then one more a minute until the order expires.
            Self::Payment => {
                Rule { by_order: per_minute(6, 1), by_token: per_minute(20, 4), by_address: per_minute(300, 120) }
            }
            // A cancelled order returns its units and lets the next one be placed: the rate of orders, with a smaller
            // burst.
            Self::Cancel => Rule { by_order: None, by_token: per_minute(10, 5), by_address: per_minute(300, 120) },
        }
    }
}

/// Returns the rate of `burst` at once, and `count` a minute.
const fn per_minute(burst: u32, count: u32) -> Option<Rate> {
    Some(Rate { burst, interval: Duration::from_micros(60_000_000 / count as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Table};

    #[test]
    fn every_limited_method_is_one_of_the_contract() {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let acts = table.routes().filter_map(|route| match &route.endpoint {
            Endpoint::Rpc(rpc) => Act::of_rpc(rpc.grpc_path.as_str()),
            Endpoint::Native(_) => None,
        });
        assert_eq!(acts.count(), 4, "a method was renamed");
    }

    const PAGE: &str = include_str!("../../../docs/security.md");

    fn row(begin: &str) -> &'static str {
        PAGE.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("docs/security.md has no {begin}"))
    }

    #[test]
    fn the_page_has_the_figures_of_every_act() {
        for act in Act::ALL {
            let row = row(&format!("| `{}`", act.name()));
            for rate in By::NARROWEST_FIRST.into_iter().filter_map(|by| act.rule().of(by)) {
                let a_minute = 60_000_000 / rate.interval.as_micros();
                let figures = format!("{}, then {a_minute}", rate.burst);
                assert!(row.contains(&figures), "docs/security.md has no {figures} in {row}");
            }
        }
        let open = row("| orders that are open |");
        assert!(open.contains(&format!("| {OPEN_BY_TOKEN} | {OPEN_BY_ADDRESS} |")), "{open}");
    }

    #[test]
    fn an_address_may_do_more_than_a_user_and_a_user_more_than_is_done_with_an_order() {
        for act in Act::ALL {
            let Rule { by_order, by_token, by_address } = act.rule();
            let address = by_address.unwrap();
            for (less, more) in [(by_order, by_token), (by_token, Some(address))] {
                let (Some(less), Some(more)) = (less, more) else { continue };
                assert!(less.burst <= more.burst && less.interval >= more.interval, "{act:?}");
            }
        }
    }
}
