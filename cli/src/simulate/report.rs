//! The report of a sale: one set of figures, as a table and as JSON.

use super::{
    expect::state_name,
    follow::is_end,
    latency::{Latency, Percentiles, Rate, RateMeter},
    stage::Stage,
    stats::{Anomaly, Totals},
    step::Timed,
    wire::{Event, Order, Stock},
};
use crate::acknowledged::Acknowledged;
use serde::Serialize;
use stampede_proto::order::v1::OrderState;
use stampede_sale::Sale;
use stampede_vocab::{CampaignId, EventId};
use std::collections::{BTreeMap, BTreeSet};

/// The report of a sale.
#[derive(Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub event_id: EventId,
    pub campaign_id: Option<CampaignId>,
    pub seed: u64,
    pub buyers: usize,
    /// From the opening to the last order's end, in seconds.
    pub took_s: f64,
    /// Delay of the opening of the event, in milliseconds; none if it did not open.
    pub opened_late_ms: Option<f64>,
    /// Number of outcomes of each kind, by step.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    pub latencies: BTreeMap<Timed, Percentiles>,
    /// The load as it was really sent.
    pub load: Load,
    /// The throughput of the mesh.
    pub rates: Rates,
    /// Orders by state.
    pub orders: BTreeMap<&'static str, usize>,
    pub arrivals: Arrivals,
    /// The stock of each item at the end.
    pub stock: Vec<ItemLeft>,
    /// Requests that were sent again, by the reason.
    pub tried_again: BTreeMap<String, u64>,
    pub unexpected: Unexpected,
    /// Whether there was no anomaly.
    pub as_expected: bool,
    /// Every acknowledged order and coupon, and the states of orders; written to a file of its own.
    #[serde(skip)]
    pub acknowledged: Acknowledged,
}

/// The load as it was really sent: its delays, and the bound that caused them.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Delay of requests, from when they were due.
    pub sent_late: Percentiles,
    /// The most requests that were under way at a time.
    pub in_flight_peak: usize,
    /// The most that may be.
    pub in_flight_most: usize,
    /// Requests that had to wait because of that bound.
    pub queued: usize,
    /// Watches that had to wait until others had ended.
    pub queued_watches: usize,
}

/// The throughput of the mesh.
#[derive(Debug, Serialize)]
pub struct Rates {
    /// Coupons issued, by when each was acknowledged.
    pub coupons_issued: Rate,
    /// Orders accepted, by when each was acknowledged.
    pub orders_accepted: Rate,
    /// Orders fulfilled, by their own time.
    pub orders_fulfilled: Rate,
}

/// The ranks of arrival of all orders.
#[derive(Debug, Serialize)]
pub struct Arrivals {
    /// Orders that have one.
    pub ranked: usize,
    /// Different ranks among them.
    pub distinct: usize,
    /// The highest rank; 0 without orders.
    pub last: i64,
}

#[derive(Debug, Serialize)]
pub struct ItemLeft {
    pub title: String,
    pub total_units: u32,
    /// Units that can still be bought.
    pub left_units: u32,
    /// Units in the ledger.
    pub committed_units: u32,
    pub held_units: u32,
    pub total_gift_units: u32,
    pub left_gift_units: u32,
}

/// Anomalies, counted, with the first ones whole.
#[derive(Debug, Serialize)]
pub struct Unexpected {
    pub count: u64,
    pub by_outcome: BTreeMap<String, u64>,
    /// The first ones.
    pub first: Vec<Anomaly>,
}

/// The state of the mesh after the sale.
pub struct Aftermath {
    pub event: Event,
    pub stocks: Vec<Stock>,
    pub orders: Vec<Order>,
}

impl Report {
    pub fn of(sale: &Sale, stage: &Stage, seed: u64, aftermath: &Aftermath) -> Self {
        anomalies(sale, stage, aftermath).into_iter().for_each(|anomaly| stage.stats.record_anomaly(anomaly));
        let totals = stage.stats.totals();
        let in_flight = stage.client.in_flight();
        Self {
            name: sale.name.as_str().to_owned(),
            event_id: stage.event,
            campaign_id: stage.campaign,
            seed,
            buyers: stage.plan.buyers.len(),
            took_s: took_s(stage, &aftermath.orders),
            opened_late_ms: opened_late_ms(&aftermath.event),
            latencies: latencies(&totals, &aftermath.orders),
            load: Load {
                sent_late: totals.sent_late,
                in_flight_peak: in_flight.peak,
                in_flight_most: in_flight.most,
                queued: in_flight.queued,
                queued_watches: in_flight.queued_watches,
            },
            rates: Rates {
                coupons_issued: totals.claims,
                orders_accepted: totals.orders,
                orders_fulfilled: fulfilled(&aftermath.orders).rate(),
            },
            orders: states(&aftermath.orders),
            arrivals: arrivals(&aftermath.orders),
            stock: items_left(sale, &aftermath.stocks),
            outcomes: totals.outcomes.into_iter().map(|(step, outcomes)| (step.name(), outcomes)).collect(),
            tried_again: totals.tried_again,
            as_expected: totals.anomaly_counts.is_empty(),
            unexpected: Unexpected {
                count: totals.anomaly_counts.values().sum(),
                by_outcome: totals.anomaly_counts,
                first: totals.anomalies,
            },
            acknowledged: Acknowledged { states: stage.follow.shown(), ..totals.acknowledged },
        }
    }
}

/// Returns the anomalies of the sale as a whole.
fn anomalies(sale: &Sale, stage: &Stage, aftermath: &Aftermath) -> Vec<Anomaly> {
    let mut anomalies = of_orders(stage, &aftermath.orders);
    match aftermath.event.actual_open_time {
        Some(actual_open_time) if actual_open_time >= aftermath.event.open_time => {}
        Some(_) => anomalies.push(Anomaly::of_sale("OPENED_EARLY", "the event opened before its time")),
        None => anomalies.push(Anomaly::of_sale("NEVER_OPENED", "the event is still not open")),
    }
    for (index, item) in items_left(sale, &aftermath.stocks).iter().enumerate() {
        if item.left_units > 0 && stage.expectations.sells_out(index) {
            let detail = format!("{} of {} are left, though many were refused", item.left_units, item.title);
            anomalies.push(Anomaly::of_sale("UNITS_LEFT", detail));
        }
        if item.left_gift_units > 0 && stage.expectations.gives_all(index) {
            let detail =
                format!("{} gifts of {} are left, though it should be sold out", item.left_gift_units, item.title);
            anomalies.push(Anomaly::of_sale("GIFTS_LEFT", detail));
        }
    }
    anomalies
}

/// Returns the anomalies of the orders as a whole.
fn of_orders(stage: &Stage, orders: &[Order]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let Arrivals { ranked, distinct, .. } = arrivals(orders);
    if distinct < ranked {
        let detail = format!("{ranked} orders share {distinct} ranks of arrival");
        anomalies.push(Anomaly::of_sale("SHARED_ARRIVAL", detail));
    }
    let listed: BTreeSet<_> = orders.iter().map(|order| order.order_id).collect();
    let acknowledged = stage.stats.totals().acknowledged.orders;
    for lost in acknowledged.difference(&listed) {
        anomalies.push(Anomaly::of_sale("LOST_ORDER", format!("{lost} was accepted, but is in no list")));
    }
    anomalies.extend(orders.iter().filter_map(wrong_end));
    for endless in orders.iter().filter(|order| !is_end(order.state)) {
        let detail = format!("{} is still {}", endless.order_id, state_name(endless.state));
        anomalies.push(Anomaly::of_sale("ENDLESS_ORDER", detail));
    }
    anomalies
}

/// Returns the anomaly of an order that has ended wrongly, whatever its buyer did.
fn wrong_end(order: &Order) -> Option<Anomaly> {
    let id = order.order_id;
    match order.state {
        OrderState::Expired if !order.is_overdue() => {
            Some(Anomaly::of_sale("EXPIRED_EARLY", format!("{id} expired before its deadline")))
        }
        _ => None,
    }
}

fn opened_late_ms(event: &Event) -> Option<f64> {
    Some(event.actual_open_time?.since(event.open_time).as_secs_f64() * 1_000.0)
}

fn took_s(stage: &Stage, orders: &[Order]) -> f64 {
    let last = orders.iter().map(|order| order.update_time).max().unwrap_or(stage.timeline.open_time);
    last.since(stage.timeline.open_time).as_secs_f64()
}

fn latencies(totals: &Totals, orders: &[Order]) -> BTreeMap<Timed, Percentiles> {
    let mut latencies = totals.latencies.clone();
    let mut to_fulfilled = Latency::default();
    for order in orders {
        if let Some(fulfill_time) = order.fulfill_time {
            to_fulfilled.record(fulfill_time.since(order.create_time));
        }
    }
    latencies.insert(Timed::OrderToFulfilled, to_fulfilled.percentiles());
    latencies
}

fn fulfilled(orders: &[Order]) -> RateMeter {
    let mut meter = RateMeter::default();
    orders.iter().filter_map(|order| order.fulfill_time).for_each(|at| meter.record(at));
    meter
}

fn states(orders: &[Order]) -> BTreeMap<&'static str, usize> {
    let mut states = BTreeMap::new();
    for order in orders {
        *states.entry(state_name(order.state)).or_default() += 1;
    }
    states
}

fn arrivals(orders: &[Order]) -> Arrivals {
    let ranks: BTreeSet<_> = orders.iter().map(|order| order.arrival).collect();
    Arrivals { ranked: orders.len(), distinct: ranks.len(), last: ranks.last().copied().unwrap_or(0) }
}

fn items_left(sale: &Sale, stocks: &[Stock]) -> Vec<ItemLeft> {
    let items = sale.items.get_ref().iter().zip(stocks);
    let left = items.map(|(item, stock)| ItemLeft {
        title: item.title.as_str().to_owned(),
        total_units: stock.total_units,
        left_units: stock.left_units,
        committed_units: stock.committed_units,
        held_units: stock.held_units,
        total_gift_units: item.gift.as_ref().map_or(0, |gift| gift.units.get_ref().get()),
        left_gift_units: stock.left_gift_units,
    });
    left.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{OrderId, Timestamp};

    fn ended(state: OrderState, update_us: i64) -> Option<String> {
        let at = Timestamp::from_micros;
        let order = Order {
            order_id: OrderId::from_uuid(uuid::Uuid::nil()),
            state,
            arrival: 1,
            version: 3,
            create_time: at(0),
            update_time: at(update_us),
            pay_deadline: Some(at(100)),
            fulfill_time: None,
        };
        wrong_end(&order).map(|anomaly| anomaly.outcome)
    }

    #[test]
    fn an_accepted_order_does_not_expire_before_its_time() {
        assert_eq!(ended(OrderState::Expired, 99).as_deref(), Some("EXPIRED_EARLY"));
        assert_eq!(ended(OrderState::Expired, 100), None);
        assert_eq!(ended(OrderState::Fulfilled, 50), None);
    }
}
