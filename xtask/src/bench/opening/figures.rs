//! The figures of the bench, and whether they are within bounds.

use crate::bench::opening::{curve::Curve, page::number};
use serde::Serialize;

/// Lateness that is aimed at, in milliseconds.
const MOST_P99_MS: f64 = 50.0;
const MOST_MS: f64 = 250.0;
/// Ceiling of the processor time of an idle mesh with all planned events, as a share of an empty one's.
const MOST_IDLE: f64 = 1.5;

/// The way of opening events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Way {
    Product,
    Naive,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::Product, Self::Naive];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Naive => "naive",
        }
    }
}

/// One instant at which events were due.
#[derive(Debug, Clone, Serialize)]
pub struct Opening {
    pub way: Way,
    /// Whether the listener was cut at that time.
    pub is_cut: bool,
    pub curve: Curve,
    /// Times of the first accepted order in some of the events, in milliseconds after the opening.
    pub first_orders_ms: Vec<Option<f64>>,
    /// Events that opened before their time.
    pub early: u64,
    /// Openings beyond one an event.
    pub double: u64,
}

impl Opening {
    pub fn listener(&self) -> &'static str {
        if self.is_cut { "cut" } else { "heard" }
    }

    /// The last of the first orders; none if an event had none.
    pub fn last_first_order_ms(&self) -> Option<f64> {
        let all: Option<Vec<f64>> = self.first_orders_ms.iter().copied().collect();
        all?.into_iter().reduce(f64::max)
    }

    /// Whether every event opened once and not early, and every buyer got an order, none of them early.
    fn is_sound(&self) -> bool {
        let orders = self.first_orders_ms.iter().all(|order| order.is_some_and(|late_ms| late_ms >= 0.0));
        self.early == 0 && self.double == 0 && self.curve.late_ms(100).is_some() && orders
    }
}

/// All of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Events that were planned for later.
    pub ahead: u32,
    /// Other keys that expire, in the logical database of the timers.
    pub keys: u32,
    pub replicas: u32,
    /// Seconds between two recovery passes of the naive way.
    pub recovery_s: u32,
    /// Processor time of all processes and servers a second, in milliseconds, while nothing was planned.
    pub idle_empty_ms: f64,
    /// The same with all planned events.
    pub idle_ahead_ms: f64,
    pub openings: Vec<Opening>,
}

impl Figures {
    /// Returns the conditions of the measurement, in one line.
    pub fn describe(&self) -> String {
        format!(
            "{} events ahead, {} other keys that expire, {} replicas of the event service. The naive way is a listener \
             alone, with a recovery pass every {} s (its longest lateness grows with it). An opening \
             of the product counts from when its replica knew of the commit, one of the naive way from when a poll saw \
             it.",
            self.ahead, self.keys, self.replicas, self.recovery_s
        )
    }

    /// Whether the product has kept its promise: no event early, twice or missed.
    pub fn is_sound(&self) -> bool {
        let mut product = self.openings.iter().filter(|opening| opening.way == Way::Product);
        product.all(Opening::is_sound)
    }

    pub fn print(&self) {
        println!("\n  {}", self.describe());
        println!(
            "\n  {:<8} {:>8} {:>6} {:>9} {:>9} {:>9} {:>6} {:>7} {:>20}",
            "way", "listener", "due", "p50 ms", "p99 ms", "max ms", "early", "double", "last first order ms"
        );
        for one in &self.openings {
            let late = |percent| number(one.curve.late_ms(percent));
            println!(
                "  {:<8} {:>8} {:>6} {:>9} {:>9} {:>9} {:>6} {:>7} {:>20}",
                one.way.as_str(),
                one.listener(),
                one.curve.total,
                late(50),
                late(99),
                late(100),
                one.early,
                one.double,
                number(one.last_first_order_ms())
            );
        }
        self.print_goals();
    }

    fn print_goals(&self) {
        let met = |is_met: bool| if is_met { "met" } else { "not met" };
        let is_below = |percent, most| {
            let mut product = self.openings.iter().filter(|opening| opening.way == Way::Product);
            product.all(|opening| opening.curve.late_ms(percent).is_some_and(|late_ms| late_ms <= most))
        };
        println!("\n  p99 at most {MOST_P99_MS} ms: {}", met(is_below(99, MOST_P99_MS)));
        println!("  max at most {MOST_MS} ms: {}", met(is_below(100, MOST_MS)));
        println!(
            "  idle: {:.1} ms of processor a second when empty, {:.1} with all that is planned; at most {MOST_IDLE} \
             times: {}",
            self.idle_empty_ms,
            self.idle_ahead_ms,
            met(self.idle_ahead_ms <= self.idle_empty_ms * MOST_IDLE)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::opening::curve::Look;

    fn opening(left: u64, orders: &[Option<f64>]) -> Opening {
        Opening {
            way: Way::Product,
            is_cut: false,
            curve: Curve { total: 10, looks: vec![Look { late_ms: 5.0, left }] },
            first_orders_ms: orders.to_vec(),
            early: 0,
            double: 0,
        }
    }

    #[test]
    fn missed_early_and_repeated_openings_are_not_sound() {
        let sound = opening(0, &[Some(4.0), Some(9.0)]);
        assert!(sound.is_sound());
        assert_eq!(sound.last_first_order_ms(), Some(9.0));
        assert!(!opening(1, &[]).is_sound(), "one has not opened");
        assert!(!opening(0, &[None]).is_sound(), "nobody could buy");
        assert!(!opening(0, &[Some(-0.5)]).is_sound(), "somebody bought before");
        assert!(!Opening { double: 1, ..sound.clone() }.is_sound());
        assert!(!Opening { early: 1, ..sound }.is_sound());
    }
}
