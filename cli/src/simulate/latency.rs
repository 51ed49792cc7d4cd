//! Measures latencies and rates.

use hdrhistogram::Histogram;
use serde::Serialize;
use stampede_vocab::Timestamp;
use std::time::Duration;

/// Longest latency that is distinguished from longer ones, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Latencies of one kind.
#[derive(Debug, Clone)]
pub struct Latency {
    all: Histogram<u64>,
    lately: Histogram<u64>,
}

/// Latencies of one kind, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self { all: empty.clone(), lately: empty }
    }
}

impl Latency {
    pub fn record(&mut self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        self.all.saturating_record(took_us);
        self.lately.saturating_record(took_us);
    }

    /// Returns the percentiles of all of them.
    pub fn percentiles(&self) -> Percentiles {
        percentiles(&self.all)
    }

    /// Returns the latencies since the last call, and resets them.
    pub fn take_lately(&mut self) -> Percentiles {
        let lately = percentiles(&self.lately);
        self.lately.reset();
        lately
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
        count: histogram.len(),
        p50_ms: millis(histogram.value_at_quantile(0.5)),
        p99_ms: millis(histogram.value_at_quantile(0.99)),
        max_ms: millis(histogram.max()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 microseconds")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// Records when each event of one kind happened, and computes their rate.
#[derive(Debug, Default)]
pub struct RateMeter {
    at_us: Vec<i64>,
}

/// The rate of events of one kind.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rate {
    pub count: usize,
    /// Time that the middle 98 of 100 took, in seconds: the stragglers at both ends are left out.
    pub busy_s: f64,
    /// Events a second in that time.
    pub per_s: f64,
    /// Most events in one second.
    pub best_per_s: usize,
}

impl RateMeter {
    pub fn record(&mut self, at: Timestamp) {
        self.at_us.push(at.micros());
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and spans are far below 2^52")]
    pub fn rate(&mut self) -> Rate {
        self.at_us.sort_unstable();
        let count = self.at_us.len();
        let stragglers = count / 100;
        let middle = &self.at_us[stragglers..count - stragglers];
        let span_us = middle.last().unwrap_or(&0) - middle.first().unwrap_or(&0);
        let busy_s = span_us as f64 / 1e6;
        let per_s = if busy_s > 0.0 { middle.len() as f64 / busy_s } else { 0.0 };
        Rate { count, busy_s, per_s, best_per_s: self.best_second() }
    }

    /// Returns the most within any second; the times are in order.
    fn best_second(&self) -> usize {
        let mut first = 0;
        let mut best = 0;
        for (last, at) in self.at_us.iter().enumerate() {
            while at - self.at_us[first] >= 1_000_000 {
                first += 1;
            }
            best = best.max(last + 1 - first);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_and_of_those_lately() {
        let mut latency = Latency::default();
        for took_ms in 1..=100 {
            latency.record(Duration::from_millis(took_ms));
        }
        let all = latency.take_lately();
        assert_eq!(all.count, 100);
        assert!((49.0..51.0).contains(&all.p50_ms) && (98.0..100.0).contains(&all.p99_ms), "{all:?}");
        assert_eq!((latency.take_lately().count, latency.percentiles().count), (0, 100));
    }

    #[test]
    fn a_rate_is_over_the_busy_time_and_names_the_best_second() {
        let mut meter = RateMeter::default();
        for at_ms in [4_000, 0, 1_000, 1_200, 1_999, 2_000] {
            meter.record(Timestamp::from_micros(at_ms * 1_000));
        }
        let rate = meter.rate();
        assert_eq!((rate.count, rate.best_per_s), (6, 3));
        assert!((rate.busy_s - 4.0).abs() < 1e-9 && (rate.per_s - 1.5).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn stragglers_do_not_make_a_rate_smaller() {
        let mut meter = RateMeter::default();
        // Two early, two late, and between them one each millisecond.
        let middle = (100_000..100_196).map(|at_ms| at_ms * 1_000);
        for at_us in middle.chain([0, 1_000, 900_000_000, 900_001_000]) {
            meter.record(Timestamp::from_micros(at_us));
        }
        let rate = meter.rate();
        assert_eq!(rate.count, 200);
        assert!((rate.busy_s - 0.195).abs() < 1e-9 && (1_000.0..1_010.0).contains(&rate.per_s), "{rate:?}");
    }

    #[test]
    fn nothing_has_no_rate() {
        assert_eq!(RateMeter::default().rate().count, 0);
    }
}
