//! Plans the actions of each buyer of the crowd and their times: drawn once from the sale file and a seed, before
//! anything is sent. No clock, no I/O: the same seed gives the same crowd.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rand_distr::{Distribution, Exp};
use stampede_sale::{Campaign, Crowd, Item, Percent, Sale};
use std::time::Duration;

/// The whole crowd.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Each buyer, in no order.
    pub buyers: Vec<BuyerPlan>,
}

#[derive(Debug, PartialEq)]
pub struct BuyerPlan {
    /// Time at which they claim a coupon, from when claims open; never without a campaign.
    pub claims_after: Option<Duration>,
    /// Time at which they order, from the opening.
    pub orders_after: Duration,
    /// They order so long before the opening too.
    pub early_by: Option<Duration>,
    pub lines: Vec<PlannedLine>,
    /// Think time before each next click.
    pub thinks: Duration,
    /// Clicks everything twice.
    pub double_clicks: bool,
    /// Loses the connection right after ordering.
    pub cuts_connection: bool,
    /// Tries to get more than the limit.
    pub goes_over_limit: bool,
    /// Comes back when it is sold out.
    pub comes_back: bool,
    /// The end that the buyer gives the order.
    pub ending: Ending,
}

/// Units of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedLine {
    /// Index of the item in the sale.
    pub item: usize,
    pub units: u32,
}

/// The end that a buyer gives an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: it expires.
    Abandons,
    Cancels,
    /// Pays it, with this card first.
    Pays(Card),
}

/// The behaviour of the first card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Is charged.
    Good,
    /// Is refused by the bank.
    Declined,
    /// Has no money on it.
    InsufficientFunds,
    /// Is charged, but the provider's answer is lost.
    TimeoutCaptured,
    /// The request to the provider is lost.
    TimeoutLost,
    /// Is charged long after.
    Late,
}

impl Card {
    const DECLINED: [Self; 2] = [Self::Declined, Self::InsufficientFunds];
    const TIMED_OUT: [Self; 3] = [Self::TimeoutCaptured, Self::TimeoutLost, Self::Late];

    /// Returns the provider's token of it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Good => "pm_card_ok",
            Self::Declined => "pm_card_declined",
            Self::InsufficientFunds => "pm_card_insufficient_funds",
            Self::TimeoutCaptured => "pm_card_timeout_captured",
            Self::TimeoutLost => "pm_card_timeout_lost",
            Self::Late => "pm_card_late",
        }
    }

    /// Returns whether the provider does not answer for it in time.
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::TimeoutCaptured | Self::TimeoutLost | Self::Late)
    }

    /// Returns whether a payment with it fails for good.
    pub const fn is_declined(self) -> bool {
        matches!(self, Self::Declined | Self::InsufficientFunds)
    }
}

impl Plan {
    /// Draws `buyers` buyers for the sale.
    pub fn draw(sale: &Sale, buyers: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let orders = poisson_stream(buyers, sale.crowd.spread_ms.get_ref().millis(), &mut rng);
        let claims = claim_stream(sale.campaign.as_ref(), buyers, &mut rng);
        let items = sale.items.get_ref();
        let buyer = |(orders_after, claims_after)| draw_buyer(&sale.crowd, items, orders_after, claims_after, &mut rng);
        Self { buyers: orders.into_iter().zip(claims).map(buyer).collect() }
    }

    /// Returns the units of each item that the crowd would take in all if everybody got what they want.
    pub fn demand(&self, items: usize) -> Vec<u64> {
        units_by_item(items, self.buyers.iter().flat_map(|buyer| &buyer.lines))
    }

    /// Returns the units of each item that buyers would take who come back for it, and for nothing else: whatever is
    /// left of the other items, they can have it.
    pub fn demand_coming_back(&self, items: usize) -> Vec<u64> {
        let coming_back = self.buyers.iter().filter(|buyer| buyer.comes_back && buyer.lines.len() == 1);
        units_by_item(items, coming_back.flat_map(|buyer| &buyer.lines))
    }

    /// Returns the demand if those who go over the limit got all that they try for: more than that the crowd never
    /// takes.
    pub fn demand_at_most(&self, limits: &[u32]) -> Vec<u64> {
        let mut demand = self.demand(limits.len());
        for line in self.buyers.iter().filter(|buyer| buyer.goes_over_limit).map(|buyer| buyer.lines[0]) {
            demand[line.item] += u64::from(limits[line.item]);
        }
        demand
    }
}

fn units_by_item<'l>(items: usize, lines: impl Iterator<Item = &'l PlannedLine>) -> Vec<u64> {
    let mut units = vec![0; items];
    for line in lines {
        units[line.item] += u64::from(line.units);
    }
    units
}

/// Draws when each of `count` independent visitors comes: the gaps are exponential, so that about all come within
/// `spread`.
fn poisson_stream(count: u32, spread: Duration, rng: &mut StdRng) -> Vec<Duration> {
    let rate_per_s = f64::from(count) / spread.as_secs_f64();
    let gaps = Exp::new(rate_per_s).expect("the bounds of the sale file make the rate positive");
    let mut at_s = 0.0;
    let mut arrivals = Vec::with_capacity(count as usize);
    for gap_s in gaps.sample_iter(rng).take(count as usize) {
        at_s += gap_s;
        arrivals.push(Duration::from_secs_f64(at_s));
    }
    arrivals
}

/// Draws a stream of claims, shuffled: the first to claim need not be the first to order.
fn claim_stream(campaign: Option<&Campaign>, buyers: u32, rng: &mut StdRng) -> Vec<Option<Duration>> {
    let Some(campaign) = campaign else { return vec![None; buyers as usize] };
    let mut claims = poisson_stream(buyers, campaign.spread_ms.millis(), rng);
    claims.shuffle(rng);
    claims.into_iter().map(Some).collect()
}

fn draw_buyer(
    crowd: &Crowd,
    items: &[Item],
    orders_after: Duration,
    claims_after: Option<Duration>,
    rng: &mut StdRng,
) -> BuyerPlan {
    let early_by = chance(crowd.early_birds_percent, rng)
        .then(|| crowd.early_by_ms.get_ref().millis().mul_f64(rng.random_range(0.1..=1.0)));
    BuyerPlan {
        claims_after,
        // An early bird waits at the door.
        orders_after: early_by.map_or(orders_after, |_| Duration::from_millis(rng.random_range(0..20))),
        early_by,
        lines: draw_lines(crowd, items, rng),
        thinks: crowd.think_ms.millis().mul_f64(rng.random_range(0.5..1.5)),
        double_clicks: chance(crowd.double_clickers_percent, rng),
        cuts_connection: chance(crowd.cut_connections_percent, rng),
        goes_over_limit: chance(crowd.over_limit_percent, rng),
        comes_back: chance(crowd.come_back_percent, rng),
        ending: draw_ending(crowd, rng),
    }
}

fn draw_lines(crowd: &Crowd, items: &[Item], rng: &mut StdRng) -> Vec<PlannedLine> {
    let count = rng.random_range(1..=crowd.max_lines_per_order.get_ref().get()) as usize;
    let chosen = rand::seq::index::sample(rng, items.len(), count).into_vec();
    let line = |item: usize| {
        let most = crowd.max_units_per_line.get().min(items[item].limit_per_buyer.get_ref().get());
        PlannedLine { item, units: rng.random_range(1..=most) }
    };
    chosen.into_iter().map(line).collect()
}

fn draw_ending(crowd: &Crowd, rng: &mut StdRng) -> Ending {
    let abandon = crowd.abandon_percent.get_ref().probability();
    let cancel = crowd.cancel_percent.get_ref().probability();
    match rng.random::<f64>() {
        fate if fate < abandon => Ending::Abandons,
        fate if fate < abandon + cancel => Ending::Cancels,
        _ => Ending::Pays(draw_card(crowd, rng)),
    }
}

fn draw_card(crowd: &Crowd, rng: &mut StdRng) -> Card {
    let declined = crowd.declined_cards_percent.get_ref().probability();
    let timed_out = crowd.timed_out_cards_percent.get_ref().probability();
    match rng.random::<f64>() {
        fate if fate < declined => Card::DECLINED[rng.random_range(0..Card::DECLINED.len())],
        fate if fate < declined + timed_out => Card::TIMED_OUT[rng.random_range(0..Card::TIMED_OUT.len())],
        _ => Card::Good,
    }
}

fn chance(share: Percent, rng: &mut StdRng) -> bool {
    rng.random_bool(share.probability())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: &str = r#"
name = "Night"
opens_in_ms = 4_000
lasts_ms = 60_000
[[items]]
title = "Shoe"
price = { minor_units = 9900, currency = "EUR" }
units = 100
limit_per_buyer = 2
[[items]]
title = "Hat"
price = { minor_units = 100, currency = "EUR" }
units = 100
limit_per_buyer = 9
[campaign]
name = "Early"
quota = 5
discount = { minor_units = 500, currency = "EUR" }
opens_before_ms = 2_000
spread_ms = 1_000
[crowd]
buyers = 10_000
spread_ms = 5_000
max_lines_per_order = 2
max_units_per_line = 4
double_clickers_percent = 5
early_birds_percent = 10
cut_connections_percent = 2
over_limit_percent = 1
come_back_percent = 50
abandon_percent = 8
cancel_percent = 4
declined_cards_percent = 20
timed_out_cards_percent = 3
"#;

    fn drawn(seed: u64) -> Plan {
        Plan::draw(&Sale::parse("test", SALE).unwrap(), 10_000, seed)
    }

    /// Returns the share of the buyers that are so, in percent.
    fn share(plan: &Plan, is_so: impl Fn(&BuyerPlan) -> bool) -> f64 {
        let count = plan.buyers.iter().filter(|buyer| is_so(buyer)).count();
        100.0 * f64::from(u32::try_from(count).unwrap()) / 10_000.0
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn shares_are_as_configured() {
        let plan = drawn(1);
        let pays = |card: fn(Card) -> bool| move |buyer: &BuyerPlan| matches!(buyer.ending, Ending::Pays(c) if card(c));
        let shares = [
            (5.0, share(&plan, |buyer| buyer.double_clicks)),
            (10.0, share(&plan, |buyer| buyer.early_by.is_some())),
            (2.0, share(&plan, |buyer| buyer.cuts_connection)),
            (1.0, share(&plan, |buyer| buyer.goes_over_limit)),
            (50.0, share(&plan, |buyer| buyer.comes_back)),
            (8.0, share(&plan, |buyer| buyer.ending == Ending::Abandons)),
            (4.0, share(&plan, |buyer| buyer.ending == Ending::Cancels)),
            (88.0 * 0.20, share(&plan, pays(Card::is_declined))),
            (88.0 * 0.03, share(&plan, pays(|card| Card::TIMED_OUT.contains(&card)))),
        ];
        for (wanted, drawn) in shares {
            // Five standard deviations of a binomial share, in percent.
            let tolerance = 5.0 * f64::sqrt(wanted * (100.0 - wanted) / 10_000.0);
            assert!((wanted - drawn).abs() < tolerance, "{wanted} % were wanted, {drawn} % were drawn");
        }
    }

    #[test]
    fn arrivals_are_a_stream_over_the_spread() {
        let plan = drawn(1);
        let usual: Vec<_> = plan.buyers.iter().filter(|buyer| buyer.early_by.is_none()).collect();
        assert!(usual.is_sorted_by_key(|buyer| buyer.orders_after));
        let last = usual.last().unwrap().orders_after.as_secs_f64();
        assert!((4.7..5.3).contains(&last), "the last comes after {last} s");
        let first_half = usual.iter().filter(|buyer| buyer.orders_after.as_secs_f64() < 2.5).count();
        assert!((4_250..4_750).contains(&first_half), "{first_half} of about 9,000 come in the first half");
    }

    #[test]
    fn the_first_to_claim_need_not_be_the_first_to_order() {
        let claims: Vec<_> = drawn(1).buyers.iter().map(|buyer| buyer.claims_after.unwrap()).collect();
        assert!(!claims.is_sorted());
    }

    #[test]
    fn nobody_wants_more_than_the_limit_or_an_item_twice() {
        let plan = drawn(1);
        for buyer in &plan.buyers {
            let limits = [2, 4];
            assert!(buyer.lines.iter().all(|line| (1..=limits[line.item]).contains(&line.units)), "{buyer:?}");
            assert!(buyer.lines.len() == 1 || buyer.lines[0].item != buyer.lines[1].item, "{buyer:?}");
        }
        assert!(plan.buyers.iter().any(|buyer| buyer.lines.len() == 2));
        let of_hats = plan.buyers.iter().flat_map(|buyer| &buyer.lines).filter(|line| line.item == 1);
        assert_eq!(plan.demand(2)[1], of_hats.map(|line| u64::from(line.units)).sum::<u64>());
    }
}
