//! Counts refusals, and acts that were let through without a check.

use super::Act;
use opentelemetry::{KeyValue, global, metrics::Counter};

/// The owner of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One order, for one user.
    Order,
    /// One user or login.
    Token,
    Address,
}

impl By {
    /// All of them: the limit of one order is the narrowest, that of an address the widest.
    pub const NARROWEST_FIRST: [Self; 3] = [Self::Order, Self::Token, Self::Address];

    /// Returns the name in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Token => "token",
            Self::Address => "address",
        }
    }
}

/// The metrics of the limits.
pub struct Meters {
    throttled: Counter<u64>,
    unchecked: Counter<u64>,
}

impl Meters {
    /// Uses the present global meter.
    pub fn new() -> Self {
        let meter = global::meter("stampede.gateway");
        let throttled = meter
            .u64_counter("stampede_gateway_throttled")
            .with_description("Acts that were refused because there were too many, by act and for whom")
            .build();
        let unchecked = meter
            .u64_counter("stampede_gateway_limits_unasked")
            .with_description("Acts that were let through because Redis did not say in time whether they may")
            .build();
        // A series that begins with its first count hides that count from queries of increases.
        unchecked.add(0, &[]);
        for act in Act::ALL {
            for by in By::NARROWEST_FIRST.into_iter().filter(|by| act.rule().of(*by).is_some()) {
                throttled.add(0, &labels(act, by));
            }
        }
        Self { throttled, unchecked }
    }

    pub fn throttled(&self, act: Act, by: By) {
        self.throttled.add(1, &labels(act, by));
    }

    /// Counts acts that were let through because Redis did not answer.
    pub fn unchecked(&self, acts: usize) {
        self.unchecked.add(acts as u64, &[]);
    }
}

/// Returns the labels of a refused act.
fn labels(act: Act, by: By) -> [KeyValue; 2] {
    [KeyValue::new("act", act.name()), KeyValue::new("by", by.name())]
}
