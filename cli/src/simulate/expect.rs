//! Which refusals the crowd reckons with. Everything else is a surprise.

use super::{client::Failure, plan::Plan, sale::Sale};
use stampede_proto::order::v1::OrderState;

/// What can run out, and what has to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    coupons_run_out: bool,
    units_run_out: bool,
    must_sell_out: Vec<bool>,
}

/// What a request was up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A claim like any other.
    Claim,
    /// A claim from a second window, at the same time.
    ClaimTwice,
    /// An order like any other.
    Order,
    /// An order before the opening.
    OrderEarly,
    /// An order of more than the limit allows.
    OrderOverLimit,
    /// A payment.
    Pay,
    /// A cancellation.
    Cancel,
}

impl Expectations {
    /// What this crowd can, and has to, make of this sale.
    pub fn of(sale: &Sale, plan: &Plan) -> Self {
        let demand = plan.demand(sale.items.get_ref().len());
        let units = sale.items.get_ref().iter().map(|item| u64::from(item.units.get()));
        let wanted_of: Vec<(u64, u64)> = demand.into_iter().zip(units).collect();
        Self {
            coupons_run_out: sale.campaign.as_ref().is_some_and(|c| plan.buyers.len() > c.quota.get() as usize),
            units_run_out: wanted_of.iter().any(|(wanted, units)| wanted > units),
            must_sell_out: wanted_of.iter().map(|(wanted, units)| sale.must_sell_out && *wanted >= 2 * units).collect(),
        }
    }

    /// Whether nothing of an item may be left in the end.
    pub fn sells_out(&self, item: usize) -> bool {
        self.must_sell_out[item]
    }

    /// Whether a request with this intent may be refused so. `closed`: the sale was over when the answer came.
    pub fn allow(&self, intent: Intent, failure: &Failure, closed: bool) -> bool {
        let Failure::Refused(problem) = failure else { return false };
        let state = problem.metadata.get("state").map_or("", String::as_str);
        match (intent, problem.reason.as_str()) {
            (Intent::Claim | Intent::ClaimTwice, "SOLD_OUT") => self.coupons_run_out,
            (Intent::Claim | Intent::ClaimTwice, "CAMPAIGN_CLOSED") => closed,
            (Intent::ClaimTwice, "ALREADY_CLAIMED") => true,
            (Intent::Order | Intent::OrderEarly, "SOLD_OUT") => self.units_run_out,
            (Intent::Order | Intent::OrderEarly | Intent::OrderOverLimit, "EVENT_CLOSED") => closed,
            (Intent::OrderEarly, "EVENT_NOT_OPEN") => true,
            (Intent::OrderOverLimit, "LIMIT_REACHED" | "SOLD_OUT") => true,
            (Intent::Pay, "PAYMENT_DEADLINE_PASSED") => true,
            (Intent::Cancel, "ORDER_NOT_CANCELLABLE") => ended_by_itself(state),
            _ => false,
        }
    }
}

/// Whether an order in this state got there while its buyer was still looking at it.
fn ended_by_itself(state: &str) -> bool {
    [OrderState::Expired, OrderState::Rejected].iter().any(|end| state_name(*end) == state)
}

/// A state as reports and problems name it.
pub fn state_name(state: OrderState) -> &'static str {
    state.as_str_name().trim_start_matches("ORDER_STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::wire::Problem;

    const ALL_RUNS_OUT: Expectations =
        Expectations { coupons_run_out: true, units_run_out: true, must_sell_out: Vec::new() };
    const NOTHING_RUNS_OUT: Expectations =
        Expectations { coupons_run_out: false, units_run_out: false, must_sell_out: Vec::new() };

    fn refused(reason: &str, state: &str) -> Failure {
        Failure::Refused(Problem {
            reason: reason.into(),
            detail: String::new(),
            request_id: String::new(),
            metadata: [("state".to_owned(), state.to_owned())].into(),
            retry_after_ms: None,
        })
    }

    #[test]
    fn sold_out_is_expected_where_there_are_fewer_than_wanted() {
        for intent in [Intent::Claim, Intent::Order] {
            assert!(ALL_RUNS_OUT.allow(intent, &refused("SOLD_OUT", ""), false));
            assert!(!NOTHING_RUNS_OUT.allow(intent, &refused("SOLD_OUT", ""), false));
        }
    }

    #[test]
    fn a_reason_is_expected_only_where_somebody_asked_for_it() {
        let allowed = |intent, reason, closed| ALL_RUNS_OUT.allow(intent, &refused(reason, ""), closed);
        assert!(allowed(Intent::OrderEarly, "EVENT_NOT_OPEN", false));
        assert!(!allowed(Intent::Order, "EVENT_NOT_OPEN", false));
        assert!(allowed(Intent::OrderOverLimit, "LIMIT_REACHED", false));
        assert!(!allowed(Intent::Order, "LIMIT_REACHED", false));
        assert!(allowed(Intent::ClaimTwice, "ALREADY_CLAIMED", false));
        assert!(!allowed(Intent::Claim, "ALREADY_CLAIMED", false));
        assert!(allowed(Intent::Order, "EVENT_CLOSED", true));
        assert!(!allowed(Intent::Order, "EVENT_CLOSED", false));
        assert!(!allowed(Intent::Pay, "ORDER_NOT_PAYABLE", false));
    }

    #[test]
    fn a_cancellation_may_come_too_late() {
        assert!(ALL_RUNS_OUT.allow(Intent::Cancel, &refused("ORDER_NOT_CANCELLABLE", "EXPIRED"), false));
        assert!(!ALL_RUNS_OUT.allow(Intent::Cancel, &refused("ORDER_NOT_CANCELLABLE", "FULFILLED"), false));
    }

    #[test]
    fn what_is_broken_is_never_expected() {
        assert!(!ALL_RUNS_OUT.allow(Intent::Order, &Failure::Broken("cut".into()), true));
        assert!(!ALL_RUNS_OUT.allow(Intent::Order, &refused("INTERNAL", ""), true));
    }

    #[test]
    fn an_item_must_sell_out_only_if_the_crowd_wants_it_twice() {
        let text = r#"
name = "Night"
opens_in_ms = 4_000
lasts_ms = 60_000
must_sell_out = true
[[items]]
title = "Shoe"
price = { minor_units = 9900, currency = "EUR" }
units = 100
limit_per_buyer = 1
[crowd]
buyers = 200
spread_ms = 5_000
"#;
        let sale = Sale::parse("test", text).unwrap();
        let sells_out = |buyers| Expectations::of(&sale, &Plan::draw(&sale, buyers, 1)).sells_out(0);
        assert!(sells_out(200));
        assert!(!sells_out(199));
    }
}
