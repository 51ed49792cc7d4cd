//! The refusals and final states that the crowd expects. All others are anomalies.

use super::{
    client::Failure,
    plan::{Card, Plan, PlannedLine},
    step::Step,
    wire::{Order, Problem},
};
use stampede_proto::order::v1::OrderState;
use stampede_sale::{Item, Sale};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// Largest expected skew between the clocks of the mesh and of the crowd.
const MAX_CLOCK_SKEW: Duration = Duration::from_millis(250);

/// The resources that can run out in this sale, and those that must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    coupons_run_out: bool,
    units_run_out: Vec<bool>,
    must_sell_out: Vec<bool>,
    must_give_all: Vec<bool>,
}

/// The purpose of a request, which decides which outcomes are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent<'l> {
    /// A claim like any other.
    Claim,
    /// A claim from a second window, at the same time.
    ClaimTwice,
    /// An order like any other.
    Order(&'l [PlannedLine]),
    /// An order before the opening.
    OrderEarly(&'l [PlannedLine]),
    /// An order by somebody who came back.
    ComeBack(&'l [PlannedLine]),
    /// An order of more than the limit allows.
    OrderOverLimit(&'l [PlannedLine]),
    /// A payment, to be made until then.
    Pay(Option<Timestamp>),
    Cancel,
}

impl<'l> Intent<'l> {
    pub const fn step(self) -> Step {
        match self {
            Self::Claim | Self::ClaimTwice => Step::Claim,
            Self::Order(_) | Self::OrderEarly(_) | Self::OrderOverLimit(_) => Step::Order,
            Self::ComeBack(_) => Step::ComeBack,
            Self::Pay(_) => Step::Payment,
            Self::Cancel => Step::Cancel,
        }
    }

    /// Returns the lines to be ordered.
    pub const fn lines(self) -> &'l [PlannedLine] {
        match self {
            Self::Order(lines) | Self::OrderEarly(lines) | Self::ComeBack(lines) | Self::OrderOverLimit(lines) => lines,
            Self::Claim | Self::ClaimTwice | Self::Pay(_) | Self::Cancel => &[],
        }
    }
}

impl Expectations {
    /// Derives the expectations from the sale and the crowd's plan.
    pub fn of(sale: &Sale, plan: &Plan) -> Self {
        let items = sale.items.get_ref();
        let demand = plan.demand(items.len());
        let limits: Vec<u32> = items.iter().map(|item| item.limit_per_buyer.get_ref().get()).collect();
        let at_most = plan.demand_at_most(&limits);
        let coming_back = plan.demand_coming_back(items.len());
        let units = |item: &Item| u64::from(item.units.get());
        // Returned units are sold only to buyers who come back for them. At random they may be half as many again.
        let sells_out = |((item, wanted), back): ((&Item, &u64), &u64)| {
            sale.must_sell_out && *wanted >= 2 * units(item) && 2 * *back >= 3 * returning(sale, units(item))
        };
        let must_sell_out: Vec<bool> = items.iter().zip(&demand).zip(&coming_back).map(sells_out).collect();
        let most_a_line = u64::from(sale.crowd.max_units_per_line.get());
        Self {
            coupons_run_out: sale.campaign.as_ref().is_some_and(|c| plan.buyers.len() > c.quota.get() as usize),
            units_run_out: items.iter().zip(at_most).map(|(item, wanted)| wanted > units(item)).collect(),
            must_give_all: items
                .iter()
                .zip(&must_sell_out)
                .map(|(item, out)| *out && gifts_go(item, most_a_line))
                .collect(),
            must_sell_out,
        }
    }

    /// Returns whether an item must be sold out in the end.
    pub fn sells_out(&self, item: usize) -> bool {
        self.must_sell_out[item]
    }

    /// Returns whether all gifts of an item must be given in the end.
    pub fn gives_all(&self, item: usize) -> bool {
        self.must_give_all[item]
    }

    /// Returns whether this failure is expected of a request with this intent. The answer came `now`; the sale is to
    /// close at `close_time`.
    pub fn allow(&self, intent: Intent<'_>, failure: &Failure, now: Timestamp, close_time: Timestamp) -> bool {
        let Failure::Refused(problem) = failure else { return false };
        let is_past = |at: Timestamp| now.plus(MAX_CLOCK_SKEW) >= at;
        match (intent, problem.reason.as_str()) {
            (Intent::Claim | Intent::ClaimTwice, "SOLD_OUT") => self.coupons_run_out,
            (Intent::Claim | Intent::ClaimTwice, "CAMPAIGN_CLOSED") => is_past(close_time),
            (Intent::ClaimTwice, "ALREADY_CLAIMED") => true,
            (Intent::Order(lines) | Intent::OrderEarly(lines) | Intent::ComeBack(lines), "SOLD_OUT") => {
                self.runs_out(problem, lines)
            }
            (
                Intent::Order(_) | Intent::OrderEarly(_) | Intent::ComeBack(_) | Intent::OrderOverLimit(_),
                "EVENT_CLOSED",
            ) => is_past(close_time),
            (Intent::OrderEarly(_), "EVENT_NOT_OPEN") => true,
            (Intent::OrderOverLimit(_), "LIMIT_REACHED" | "SOLD_OUT") => true,
            (Intent::Pay(deadline), "PAYMENT_DEADLINE_PASSED") => deadline.is_some_and(is_past),
            (Intent::Cancel, "ORDER_NOT_CANCELLABLE") => ended_by_itself(problem),
            _ => false,
        }
    }

    /// Returns whether the item that the problem names can be sold out.
    fn runs_out(&self, problem: &Problem, lines: &[PlannedLine]) -> bool {
        let named = problem.field.as_deref().and_then(line_of).and_then(|line| lines.get(line));
        named.is_some_and(|line| self.units_run_out[line.item])
    }
}

/// Returns the line in a field such as `lines[1].units`.
fn line_of(field: &str) -> Option<usize> {
    field.strip_prefix("lines[")?.split_once(']')?.0.parse().ok()
}

/// Returns whether all gifts must go with an item that sells out. A returned gift goes with the next line, so there
/// must be enough lines after the first ones that got them.
fn gifts_go(item: &Item, most_units_a_line: u64) -> bool {
    let lines = u64::from(item.units.get()) / most_units_a_line.max(1);
    item.gift.as_ref().is_some_and(|gift| lines >= 2 * u64::from(gift.units.get_ref().get()))
}

/// Returns whether an order in this state got there while its buyer was still waiting for it. Whether it expired before
/// its time is checked when the sale is over.
fn ended_by_itself(problem: &Problem) -> bool {
    let state = problem.metadata.get("state").map_or("", String::as_str);
    state == state_name(OrderState::Expired)
}

/// Returns whether an accepted payment with this card may lead to the state of the order. The provider answers for a
/// good card at once, so only FULFILLED is right; where it does not answer in time, the order may expire meanwhile, and
/// money that is captured after that buys the units again or goes back.
pub fn leads_there(card: Card, order: &Order) -> bool {
    match order.state {
        OrderState::Fulfilled => !card.is_declined(),
        OrderState::AwaitingPayment => card.is_declined(),
        OrderState::Expired => card != Card::Good && order.is_overdue(),
        OrderState::Paid | OrderState::Refunding | OrderState::Refunded => card.is_slow() && order.is_overdue(),
        OrderState::Unspecified | OrderState::Paying | OrderState::Cancelled => false,
    }
}

/// Estimates how many of so many units go back on sale, because their buyers walk away.
fn returning(sale: &Sale, units: u64) -> u64 {
    let walk_away =
        [&sale.crowd.abandon_percent, &sale.crowd.cancel_percent].map(|percent| percent.get_ref().probability());
    (units as f64 * walk_away.iter().sum::<f64>()).ceil() as u64
}

/// Returns the name of a state in reports and problems.
pub fn state_name(state: OrderState) -> &'static str {
    state.as_str_name().trim_start_matches("ORDER_STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::OrderId;

    const FIRST_RUNS_OUT: Expectations = Expectations {
        coupons_run_out: true,
        units_run_out: Vec::new(),
        must_sell_out: Vec::new(),
        must_give_all: Vec::new(),
    };
    const LINES: &[PlannedLine] = &[PlannedLine { item: 1, units: 1 }, PlannedLine { item: 0, units: 1 }];
    const CLOSES_AT: Timestamp = Timestamp::from_micros(60_000_000);
    const BEFORE: Timestamp = Timestamp::from_micros(30_000_000);

    fn expectations() -> Expectations {
        Expectations { units_run_out: vec![true, false], ..FIRST_RUNS_OUT }
    }

    fn refused(reason: &str, field: Option<&str>, state: &str) -> Failure {
        Failure::Refused(Box::new(Problem {
            reason: reason.into(),
            detail: String::new(),
            trace_id: String::new(),
            metadata: [("state".to_owned(), state.to_owned())].into(),
            field: field.map(str::to_owned),
            retry_after_ms: None,
        }))
    }

    fn allowed(intent: Intent<'_>, reason: &str, now: Timestamp) -> bool {
        expectations().allow(intent, &refused(reason, None, ""), now, CLOSES_AT)
    }

    fn order(state: OrderState, update_us: i64) -> Order {
        let at = Timestamp::from_micros;
        Order {
            order_id: OrderId::from_uuid(uuid::Uuid::nil()),
            state,
            arrival: 1,
            version: 4,
            create_time: at(0),
            update_time: at(update_us),
            pay_deadline: Some(at(100)),
            fulfill_time: None,
        }
    }

    #[test]
    fn sold_out_is_expected_of_the_item_of_which_there_are_fewer_than_wanted() {
        let allowed = |intent, field| expectations().allow(intent, &refused("SOLD_OUT", field, ""), BEFORE, CLOSES_AT);
        for intent in [Intent::Order(LINES), Intent::OrderEarly(LINES), Intent::ComeBack(LINES)] {
            assert!(allowed(intent, Some("lines[1].units")), "item 0 runs out");
            assert!(!allowed(intent, Some("lines[0].units")), "item 1 does not");
            assert!(!allowed(intent, Some("lines")), "of which item it is has to be said");
        }
        assert!(allowed(Intent::Claim, None));
        let enough = Expectations { coupons_run_out: false, ..expectations() };
        assert!(!enough.allow(Intent::Claim, &refused("SOLD_OUT", None, ""), BEFORE, CLOSES_AT));
    }

    #[test]
    fn a_reason_is_expected_only_of_a_request_that_may_cause_it() {
        assert!(allowed(Intent::OrderEarly(LINES), "EVENT_NOT_OPEN", BEFORE));
        assert!(!allowed(Intent::Order(LINES), "EVENT_NOT_OPEN", BEFORE));
        assert!(allowed(Intent::OrderOverLimit(LINES), "LIMIT_REACHED", BEFORE));
        assert!(!allowed(Intent::Order(LINES), "LIMIT_REACHED", BEFORE));
        assert!(allowed(Intent::ClaimTwice, "ALREADY_CLAIMED", BEFORE));
        assert!(!allowed(Intent::Claim, "ALREADY_CLAIMED", BEFORE));
        assert!(allowed(Intent::Order(LINES), "EVENT_CLOSED", CLOSES_AT));
        assert!(!allowed(Intent::Order(LINES), "EVENT_CLOSED", BEFORE));
        assert!(!allowed(Intent::Pay(None), "ORDER_NOT_PAYABLE", BEFORE));
    }

    #[test]
    fn a_payment_may_be_too_late_only_after_its_deadline() {
        assert!(allowed(Intent::Pay(Some(BEFORE)), "PAYMENT_DEADLINE_PASSED", BEFORE));
        assert!(!allowed(Intent::Pay(Some(CLOSES_AT)), "PAYMENT_DEADLINE_PASSED", BEFORE));
        assert!(!allowed(Intent::Pay(None), "PAYMENT_DEADLINE_PASSED", BEFORE));
    }

    #[test]
    fn a_cancellation_may_come_too_late() {
        let allowed = |state| {
            expectations().allow(Intent::Cancel, &refused("ORDER_NOT_CANCELLABLE", None, state), BEFORE, CLOSES_AT)
        };
        assert!(allowed("EXPIRED"));
        assert!(!allowed("FULFILLED"));
    }

    #[test]
    fn what_is_broken_is_never_expected() {
        let broken = Failure::Broken("cut".into());
        assert!(!expectations().allow(Intent::Order(LINES), &broken, CLOSES_AT, CLOSES_AT));
        assert!(!allowed(Intent::Order(LINES), "INTERNAL", CLOSES_AT));
    }

    #[test]
    fn a_good_card_leads_to_the_goods_and_nowhere_else() {
        for state in [OrderState::Expired, OrderState::Refunding, OrderState::Refunded, OrderState::Cancelled] {
            assert!(!leads_there(Card::Good, &order(state, 200)), "{state:?}");
        }
        assert!(leads_there(Card::Good, &order(OrderState::Fulfilled, 50)));
        assert!(!leads_there(Card::Good, &order(OrderState::AwaitingPayment, 50)));
    }

    #[test]
    fn other_cards_may_be_overtaken_by_the_deadline_but_not_before_it() {
        assert!(leads_there(Card::Declined, &order(OrderState::AwaitingPayment, 50)));
        assert!(!leads_there(Card::Declined, &order(OrderState::Fulfilled, 50)));
        assert!(leads_there(Card::Declined, &order(OrderState::Expired, 100)));
        assert!(!leads_there(Card::Declined, &order(OrderState::Expired, 99)));
        assert!(!leads_there(Card::Declined, &order(OrderState::Refunded, 200)));
        for state in [OrderState::Expired, OrderState::Paid, OrderState::Refunding, OrderState::Refunded] {
            assert!(leads_there(Card::Late, &order(state, 100)), "{state:?}");
            assert!(!leads_there(Card::Late, &order(state, 99)), "{state:?}");
        }
    }

    fn of_shoes(gifts: u32, most_a_line: u32, buyers: u32) -> Expectations {
        let text = format!(
            r#"
name = "Night"
opens_in_ms = 4_000
lasts_ms = 60_000
must_sell_out = true
[[items]]
title = "Shoe"
price = {{ minor_units = 9900, currency = "EUR" }}
units = 100
limit_per_buyer = 1
gift = {{ title = "Lace", units = {gifts} }}
[crowd]
buyers = 200
spread_ms = 5_000
max_units_per_line = {most_a_line}
"#
        );
        let sale = Sale::parse("test", &text).unwrap();
        Expectations::of(&sale, &Plan::draw(&sale, buyers, 1))
    }

    #[test]
    fn an_item_must_sell_out_only_if_the_crowd_wants_it_twice() {
        assert!(of_shoes(10, 1, 200).sells_out(0));
        assert!(!of_shoes(10, 1, 199).sells_out(0));
        assert!(!of_shoes(10, 1, 100).units_run_out[0] && of_shoes(10, 1, 101).units_run_out[0]);
    }

    #[test]
    fn an_item_must_sell_out_only_if_enough_come_back_for_what_others_return() {
        let text = include_str!("../../../examples/flash-sale.toml");
        let sale = Sale::parse("test", text).unwrap();
        let required = |buyers| {
            let expected = Expectations::of(&sale, &Plan::draw(&sale, buyers, 1));
            [0, 1, 2].map(|item| expected.sells_out(item))
        };
        assert_eq!(required(5_000), [true; 3]);
        assert_eq!(required(800), [false; 3], "the crowd wants it twice, but few come back");
    }

    #[test]
    fn all_gifts_must_go_only_where_there_are_lines_enough() {
        assert!(of_shoes(50, 1, 200).gives_all(0));
        assert!(!of_shoes(51, 1, 200).gives_all(0));
        assert!(!of_shoes(50, 2, 200).gives_all(0));
        assert!(!of_shoes(50, 1, 199).gives_all(0), "it need not sell out at all");
    }
}
