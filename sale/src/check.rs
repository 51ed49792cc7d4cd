//! Checks the values of a sale file against each other. Bounds of single values are checked as they are read.

use crate::{Campaign, Crowd, Item, Percent, Sale};
use toml::Spanned;

/// Shortest time between the creation of a campaign and its first claim, in milliseconds: it has to be staged.
const STAGING_MS: u32 = 500;

/// A value that does not go with the others.
pub struct Fault {
    /// Place in the text where the value begins, in bytes.
    pub offset: usize,
    pub field: String,
    pub problem: String,
}

impl Fault {
    fn at<T>(value: &Spanned<T>, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { offset: value.span().start, field: field.into(), problem: problem.into() }
    }
}

/// Finds the first value that does not go with the others.
pub fn consistent(sale: &Sale) -> Result<(), Fault> {
    let items = sale.items.get_ref();
    if items.is_empty() || items.len() > 100 {
        return Err(Fault::at(&sale.items, "items", "must be 1 to 100"));
    }
    for (index, item) in items.iter().enumerate() {
        item_possible(item, index, &items[0])?;
    }
    if let Some(campaign) = &sale.campaign {
        campaign_possible(campaign, sale)?;
    }
    payable(sale)?;
    crowd_possible(&sale.crowd, sale)
}

/// Checks that the slowest buyers can pay: they take one and a half of think_ms, once before each of two payments.
fn payable(sale: &Sale) -> Result<(), Fault> {
    let slowest_ms = 3 * sale.crowd.think_ms.get();
    match &sale.pay_window_ms {
        Some(window) if window.get_ref().get() <= slowest_ms => {
            let problem = format!("must be over {slowest_ms}, or buyers who think for think_ms are too late to pay");
            Err(Fault::at(window, "pay_window_ms", problem))
        }
        _ => Ok(()),
    }
}

fn item_possible(item: &Item, index: usize, first: &Item) -> Result<(), Fault> {
    let limit = &item.limit_per_buyer;
    if limit.get_ref().get() > item.units.get() {
        let problem = format!("is {}, but there are {} units only", limit.get_ref(), item.units);
        return Err(Fault::at(limit, format!("items[{index}].limit_per_buyer"), problem));
    }
    let (currency, of_first) = (item.price.get_ref().currency(), first.price.get_ref().currency());
    if currency != of_first {
        let problem = format!("is in {currency}, but that of the first item in {of_first}: a sale has one currency");
        return Err(Fault::at(&item.price, format!("items[{index}].price"), problem));
    }
    match &item.gift {
        Some(gift) if gift.units.get_ref().get() > item.units.get() => {
            let problem =
                format!("is {}, but there are {} units only that it could come with", gift.units.get_ref(), item.units);
            Err(Fault::at(&gift.units, format!("items[{index}].gift.units"), problem))
        }
        _ => Ok(()),
    }
}

fn campaign_possible(campaign: &Campaign, sale: &Sale) -> Result<(), Fault> {
    let before = &campaign.opens_before_ms;
    let earliest = sale.opens_in_ms.get_ref().get().saturating_sub(STAGING_MS);
    if before.get_ref().get() > earliest {
        let problem = format!("must be at least {STAGING_MS} less than opens_in_ms, so {earliest} at most");
        return Err(Fault::at(before, "campaign.opens_before_ms", problem));
    }
    let (currency, of_items) =
        (campaign.discount.get_ref().currency(), sale.items.get_ref()[0].price.get_ref().currency());
    if currency != of_items {
        let problem = format!("is in {currency}, but the items are in {of_items}");
        return Err(Fault::at(&campaign.discount, "campaign.discount", problem));
    }
    Ok(())
}

fn crowd_possible(crowd: &Crowd, sale: &Sale) -> Result<(), Fault> {
    let (lines, items) = (&crowd.max_lines_per_order, sale.items.get_ref().len());
    if lines.get_ref().get() as usize > items {
        return Err(Fault::at(lines, "crowd.max_lines_per_order", format!("is over the {items} items that there are")));
    }
    if crowd.spread_ms.get_ref().get() > sale.lasts_ms.get_ref().get() {
        return Err(Fault::at(
            &crowd.spread_ms,
            "crowd.spread_ms",
            "is over lasts_ms: some would come after the close",
        ));
    }
    let early = &crowd.early_by_ms;
    if crowd.early_birds_percent > Percent::default() && early.get_ref().get() > sale.opens_in_ms.get_ref().get() {
        return Err(Fault::at(early, "crowd.early_by_ms", "is over opens_in_ms: some would come before the start"));
    }
    shares(&crowd.abandon_percent, "abandon_percent", &crowd.cancel_percent, "cancel_percent")?;
    let (declined, timed_out) = (&crowd.declined_cards_percent, &crowd.timed_out_cards_percent);
    shares(declined, "declined_cards_percent", timed_out, "timed_out_cards_percent")
}

/// Checks two shares of the same whole.
fn shares(one: &Spanned<Percent>, of_one: &str, other: &Spanned<Percent>, of_other: &str) -> Result<(), Fault> {
    if one.get_ref().probability() + other.get_ref().probability() <= 1.0 {
        return Ok(());
    }
    let (later, field, with) =
        if one.span().start > other.span().start { (one, of_one, of_other) } else { (other, of_other, of_one) };
    Err(Fault::at(later, format!("crowd.{field}"), format!("and {with} together are over 100 percent")))
}
