//! The plain model of a history: what the orders of one event have by the answers so far, and which answers are right.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    random::Random,
    sale::{Answer, Order},
};
use stampede_proto::{
    inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome},
    message::v1::StockRejectReason,
};
use stampede_testkit::buyer;
use stampede_vocab::{EventId, ItemId, OrderId, RequestId, UserId};
use std::collections::{BTreeMap, BTreeSet};

const BUYERS: usize = 4;

/// An order of the model.
pub struct Known {
    pub order: Order,
    /// Draws among orders tell it apart by this, and not by how many came before it.
    mark: u64,
    /// What it has, from the answer that reserved it until it gives that back.
    pub reserved: Option<proto::Reserved>,
    /// What it had when its message gave that back.
    had: Option<proto::Reserved>,
    /// Whether its units went back by its message, so that a repeat may not have them.
    pub ended: bool,
    /// The first answer to its late payment.
    pub late: Option<Answer>,
    /// How often its late payment was answered.
    pub late_answers: usize,
    /// What was asked and not taken back.
    pub asked: Vec<proto::Reserved>,
    /// Whether it was asked for with another body, whose hold an unsettled Redis may still have.
    pub asked_otherwise: bool,
    /// Whether a caller went away before it was answered: the order may have units that nobody knows of.
    pub unheard: bool,
}

impl Known {
    /// Whether it may have units that nobody knows of.
    fn is_in_doubt(&self) -> bool {
        self.unheard && self.reserved.is_none() && !self.ended
    }

    /// Whether the ledger has the order for certain, with its units or without.
    pub fn is_in_ledger(&self) -> bool {
        self.reserved.is_some() || self.ended
    }

    fn note_again(&mut self, repeat: proto::Reserved) -> Result<(), String> {
        let Some(first) = &self.reserved else { return Ok(()) };
        let is_same_time = first.commit_time.is_none() || first.commit_time == repeat.commit_time;
        if (first.arrival, &first.lines) != (repeat.arrival, &repeat.lines) || !is_same_time {
            return Err("a repeat got another answer".into());
        }
        self.reserved = Some(repeat.clone());
        self.asked.push(repeat);
        Ok(())
    }

    /// It takes again what it had, but for the gifts, which are not paid late.
    fn take_again(&mut self) {
        let Some(mut reserved) = self.had.take() else { return };
        // The next repeat shows when that was.
        reserved.commit_time = None;
        for line in &mut reserved.lines {
            line.gift_units = 0;
        }
        (self.reserved, self.ended) = (Some(reserved), false);
    }

    /// What the ledger says to another payment of an order that was paid late and refunded.
    fn given_back(&self) -> Answer {
        let item_id = self.order.lines.iter().map(|(item_id, _)| *item_id).min().expect("an order has lines");
        Answer::Rejected { reason: StockRejectReason::SoldOut, item_id: item_id.to_string() }
    }
}

/// What the model knows of one event.
pub struct Model {
    pub event_id: EventId,
    pub items: Vec<proto::StagedItem>,
    buyers: Vec<UserId>,
    pub orders: Vec<Known>,
    /// Which order each place of arrival was given to.
    arrivals: BTreeMap<i64, usize>,
    /// How many places of arrival Redis has still to give again before it gives new ones, since it was rolled back by
    /// hand. Below zero, a new one may have overtaken one that was given again. `None` once Redis has settled.
    places_to_repeat: Option<i64>,
    /// Whether Redis may know less or more than the ledger, so that refusals of new orders need not be right.
    disturbed: bool,
    /// Whether Redis may be ready without the buyers of orders in the ledger, so that it may refuse repeats of these.
    forgetful: bool,
    /// How often it was disturbed.
    pub disturbances: usize,
}

impl Model {
    pub fn new(event_id: EventId, items: Vec<proto::StagedItem>) -> Self {
        Self {
            event_id,
            items,
            buyers: (0..BUYERS).map(|_| buyer()).collect(),
            orders: Vec::new(),
            arrivals: BTreeMap::new(),
            places_to_repeat: None,
            disturbed: false,
            forgetful: false,
            disturbances: 0,
        }
    }

    /// A new order of a random buyer, for one item or all.
    pub fn new_order(&mut self, random: &mut Random) -> usize {
        let (number, mark) = (self.orders.len(), random.number());
        let buyer = self.buyers[random.below(BUYERS)];
        let first = random.below(self.items.len());
        let all = random.below(4) == 0;
        let lines = (0..self.items.len()).filter(|index| all || *index == first);
        let lines = lines.map(|index| (ItemId::derive(self.event_id, index), random.between(1, 2))).collect();
        let order_id = OrderId::derive(buyer, &RequestId::parse(&format!("{number}")).unwrap());
        self.orders.push(Known {
            order: Order { order_id, buyer, event_id: self.event_id, lines },
            mark,
            reserved: None,
            had: None,
            ended: false,
            late: None,
            late_answers: 0,
            asked: Vec::new(),
            asked_otherwise: false,
            unheard: false,
        });
        number
    }

    /// A random one of the orders of which this is so. Each order has a rank in a draw, and the first is taken: so it
    /// is the same one when others are missing.
    pub fn any(&self, random: &mut Random, is_meant: impl Fn(&Known) -> bool) -> Option<usize> {
        let draw = random.number();
        let meant = (0..self.orders.len()).filter(|index| is_meant(&self.orders[*index]));
        meant.min_by_key(|index| Random::new(draw ^ self.orders[*index].mark).number())
    }

    /// The orders that may have units that nobody knows of.
    pub fn in_doubt(&self) -> Vec<usize> {
        (0..self.orders.len()).filter(|index| self.orders[*index].is_in_doubt()).collect()
    }

    /// Redis may show something else than the ledger from now on.
    pub fn disturb(&mut self) {
        self.disturbed = true;
        self.disturbances += 1;
    }

    /// Redis has lost what it had. It grants nothing until it knows all buyers, unless a repair is on its way that
    /// began before.
    pub fn lose(&mut self) {
        self.forgetful |= self.disturbed;
        self.disturb();
    }

    /// Redis was rolled back to an earlier copy, and may not know whoever came later.
    pub fn roll_back(&mut self) {
        self.forgetful = true;
        self.disturb();
    }

    /// It was so by hand, to a copy that has given so many places of arrival: it gives those since again until that is
    /// found.
    pub fn repeat_places_after(&mut self, arrivals: i64) {
        let last = self.arrivals.keys().next_back().copied().unwrap_or(0);
        let to_repeat = last - arrivals;
        self.places_to_repeat = Some(self.places_to_repeat.map_or(to_repeat, |before| before.min(to_repeat)));
    }

    /// So many requests are sent, each of which may be given a place of arrival, whatever is answered.
    pub fn ask(&mut self, requests: i64) {
        if let Some(to_repeat) = &mut self.places_to_repeat {
            *to_repeat -= requests;
        }
    }

    /// Redis shows what the ledger has.
    pub fn settle(&mut self) {
        (self.disturbed, self.forgetful, self.places_to_repeat) = (false, false, None);
    }

    /// Compares an answer with the model, and lets the model follow it.
    pub fn note(&mut self, index: usize, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Reserved(reserved) => self.note_reserved(index, reserved),
            Outcome::Refusal(refusal) => self.check_refusal(index, &refusal),
        }
    }

    fn note_reserved(&mut self, index: usize, reserved: proto::Reserved) -> Result<(), String> {
        self.note_arrival(index, reserved.arrival)?;
        let known = &mut self.orders[index];
        if known.ended {
            return Err("an order that has ended got units".into());
        }
        if known.reserved.is_some() {
            return known.note_again(reserved);
        }
        known.reserved = Some(reserved.clone());
        known.asked.push(reserved);
        self.check_totals()
    }

    /// No two orders have one place of arrival, unless Redis was rolled back to a copy so young that the orders on
    /// their way have passed all places since it.
    fn note_arrival(&mut self, index: usize, arrival: i64) -> Result<(), String> {
        let owner = *self.arrivals.entry(arrival).or_insert(index);
        let are_all_passed = self.places_to_repeat.is_some_and(|to_repeat| to_repeat < 0);
        if owner == index || are_all_passed {
            return Ok(());
        }
        Err(format!("place of arrival {arrival} was given to order {owner} and to order {index}"))
    }

    /// The message of the order gave its units back.
    pub fn end(&mut self, index: usize) {
        let known = &mut self.orders[index];
        (known.had, known.ended) = (known.reserved.take(), true);
    }

    /// Compares the answer to a late payment with the model, and lets the model follow it. The ledger decides by what
    /// it has itself, whatever Redis knows; a repeat gets the first answer, unless the order was refunded since.
    pub fn note_late(&mut self, index: usize, answer: Answer) -> Result<(), String> {
        let known = &self.orders[index];
        let has_units = known.reserved.is_some();
        let is_right = match &known.late {
            None => answer == Answer::Committed || (!has_units && !self.fits(&known.order)),
            Some(Answer::Committed) if !has_units => answer == known.given_back(),
            Some(first) => answer == *first,
        };
        if !is_right {
            return Err(format!("a late payment, answered before with {:?}, is answered with {answer:?}", known.late));
        }
        let takes_again = known.late.is_none() && !has_units && answer == Answer::Committed;
        let known = &mut self.orders[index];
        known.late_answers += 1;
        if known.late.is_none() {
            known.late = Some(answer);
        }
        if takes_again {
            known.take_again();
            // Redis is told right after.
            self.disturb();
        }
        self.check_totals()
    }

    /// Nothing is sold twice, and nobody has more than the limit.
    fn check_totals(&self) -> Result<(), String> {
        for item in &self.items {
            let by_buyer = self.units_by_buyer(&item.item_id);
            if by_buyer.values().sum::<i32>() > item.total_units {
                return Err(format!("{} is oversold", item.item_id));
            }
            if by_buyer.values().any(|units| *units > item.limit_per_buyer) {
                return Err(format!("a buyer of {} is over the limit", item.item_id));
            }
            if self.lines_of(&item.item_id).map(|(_, line)| line.gift_units).sum::<i32>() > item.gift_total_units {
                return Err(format!("gifts of {} are oversold", item.item_id));
            }
        }
        Ok(())
    }

    /// A refusal is right while Redis knows what the ledger knows.
    fn check_refusal(&self, index: usize, refusal: &proto::Refusal) -> Result<(), String> {
        let known = &self.orders[index];
        match refusal.reason() {
            RefusalReason::Released if known.ended => Ok(()),
            RefusalReason::NotReady if self.disturbed => Ok(()),
            RefusalReason::RequestIdReused if self.disturbed && known.asked_otherwise => Ok(()),
            RefusalReason::SoldOut | RefusalReason::LimitReached if self.may_lack_units(known) => Ok(()),
            reason if known.ended => Err(format!("an order that has ended is refused for another reason: {reason:?}")),
            reason if known.reserved.is_some() => Err(format!("a repeat was refused: {reason:?}")),
            reason => Err(format!("refused although there are units: {reason:?}")),
        }
    }

    /// Whether there may be too few units for the order, by what Redis knows. Redis leaves an order of a buyer that it
    /// knows to the ledger, which shows a repeat.
    fn may_lack_units(&self, known: &Known) -> bool {
        if known.is_in_ledger() { self.forgetful } else { self.disturbed || !self.fits(&known.order) }
    }

    /// The body is compared before anything else, also of an order that has ended; but what Redis refuses does not come
    /// to the ledger if Redis has lost the buyer.
    pub fn check_reused(&self, outcome: &Outcome) -> Result<(), String> {
        let Outcome::Refusal(refusal) = outcome else { return Err("another body got the units of an order".into()) };
        match refusal.reason() {
            RefusalReason::RequestIdReused => Ok(()),
            RefusalReason::NotReady if self.disturbed => Ok(()),
            RefusalReason::SoldOut | RefusalReason::LimitReached if self.forgetful => Ok(()),
            reason => Err(format!("another body is refused for another reason: {reason:?}")),
        }
    }

    /// Whether there are units for an order that has none, also if all that nobody knows of are taken.
    fn fits(&self, order: &Order) -> bool {
        order.lines.iter().all(|(item_id, units)| {
            let text = item_id.to_string();
            let item = self.items.iter().find(|item| item.item_id == text).expect("it is offered");
            let mut by_buyer = self.units_by_buyer(&text);
            let others =
                self.orders.iter().filter(|known| known.is_in_doubt() && known.order.order_id != order.order_id);
            for other in others.map(|known| &known.order) {
                let lines = other.lines.iter().filter(|(other_id, _)| other_id == item_id);
                *by_buyer.entry(other.buyer.to_string()).or_default() += lines.map(|(_, units)| units).sum::<i32>();
            }
            let has = by_buyer.get(&order.buyer.to_string()).copied().unwrap_or(0);
            by_buyer.values().sum::<i32>() + units <= item.total_units && has + units <= item.limit_per_buyer
        })
    }

    fn lines_of<'a>(&'a self, item_id: &'a str) -> impl Iterator<Item = (&'a Order, &'a proto::ReservedLine)> {
        self.orders.iter().flat_map(move |known| {
            let lines = known.reserved.iter().flat_map(|reserved| &reserved.lines);
            lines.filter(move |line| line.item_id == item_id).map(|line| (&known.order, line))
        })
    }

    fn units_by_buyer(&self, item_id: &str) -> BTreeMap<String, i32> {
        let mut units = BTreeMap::new();
        for (order, line) in self.lines_of(item_id) {
            *units.entry(order.buyer.to_string()).or_default() += line.units;
        }
        units
    }

    /// Left, committed and held units of each item, as Redis is to show them.
    pub fn expected(&self) -> Vec<(i32, i32, i32)> {
        let of_item = |item: &proto::StagedItem| {
            let committed = self.units_by_buyer(&item.item_id).values().sum::<i32>();
            (item.total_units - committed, committed, 0)
        };
        self.items.iter().map(of_item).collect()
    }

    pub fn name(&self, index: usize) -> String {
        let order = &self.orders[index].order;
        let buyer = self.buyers.iter().position(|buyer| *buyer == order.buyer).expect("one of them");
        let units: Vec<i32> = order.lines.iter().map(|(_, units)| *units).collect();
        format!("order {index} of buyer {buyer} for {units:?}")
    }
}

#[test]
fn a_draw_takes_the_same_order_when_others_are_missing() {
    let event_id = EventId::derive(buyer(), &RequestId::parse("history").unwrap());
    let seeds: Vec<u64> = (1..=8).collect();
    let taken = |draw: u64, seeds: &[u64]| {
        let mut model = Model::new(event_id, vec![proto::StagedItem::default()]);
        for seed in seeds {
            model.new_order(&mut Random::new(*seed));
        }
        seeds[model.any(&mut Random::new(draw), |_| true).unwrap()]
    };
    let draws = 100..164;
    for draw in draws.clone() {
        let first = taken(draw, &seeds);
        for missing in seeds.iter().filter(|seed| **seed != first) {
            let others: Vec<u64> = seeds.iter().filter(|seed| *seed != missing).copied().collect();
            assert_eq!(taken(draw, &others), first, "draw {draw}, without order {missing}");
        }
    }
    let all: BTreeSet<u64> = draws.map(|draw| taken(draw, &seeds)).collect();
    assert_eq!(all.len(), seeds.len(), "only these are ever taken: {all:?}");
}
