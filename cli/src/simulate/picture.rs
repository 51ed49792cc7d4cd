//! The live figures of a sale, and their texts.

use super::{expect::state_name, latency::Percentiles, stats::Glance, step::Timed, wire::Stock};
use stampede_proto::order::v1::OrderState;
use std::{collections::BTreeMap, fmt::Write as _};

/// The figures of a picture.
pub struct Picture {
    /// Time until the opening, or since.
    pub phase: String,
    /// Counts so far.
    pub glance: Glance,
    pub stocks: Vec<Stock>,
    /// Orders by state, as far as answers have shown it.
    pub states: BTreeMap<OrderState, usize>,
    /// Latencies since the last picture.
    pub latencies: BTreeMap<Timed, Percentiles>,
}

impl Picture {
    /// Returns all of it in one line.
    pub fn line(&self) -> String {
        let Glance { arrivals, coupons, orders, .. } = self.glance;
        let left: Vec<_> = self.stocks.iter().map(|stock| stock.left_units.to_string()).collect();
        let left = left.join(" ");
        let mut line = format!("{}: {arrivals} arrived, {coupons} coupons, {orders} orders, left {left}", self.phase);
        for part in [self.states_text(), self.latencies_text(), self.anomalies_text()] {
            if !part.is_empty() {
                let _ = write!(line, " | {part}");
            }
        }
        line
    }

    /// Returns the orders by state as text.
    pub fn states_text(&self) -> String {
        let states = self.states.iter();
        let texts: Vec<_> =
            states.map(|(state, count)| format!("{count} {}", state_name(*state).to_lowercase())).collect();
        texts.join(", ").replace('_', " ")
    }

    /// Returns the latencies of accepted steps as text.
    pub fn latencies_text(&self) -> String {
        let done = self.latencies.iter().filter(|(timed, _)| timed.is_done());
        let text = |(timed, took): (&Timed, &Percentiles)| {
            format!("{} p50 {:.0} p99 {:.0} ms", timed.name().replace('_', " "), took.p50_ms, took.p99_ms)
        };
        done.map(text).collect::<Vec<_>>().join(", ")
    }

    /// Returns the number of anomalies as text; empty without any.
    pub fn anomalies_text(&self) -> String {
        match self.glance.anomalies {
            0 => String::new(),
            count => format!("{count} unexpected"),
        }
    }
}
