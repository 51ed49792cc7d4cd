//! The steps of a buyer, their outcomes, and the latencies that are measured. The names are those of the report, in
//! tables and JSON; docs/operations.md explains them.

use serde::{Serialize, Serializer};

/// A step of a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Claim,
    Order,
    /// Comes back after it was sold out, and places another.
    ComeBack,
    Payment,
    Cancel,
}

/// The kind of an answer. A refusal is often faster than an acceptance, so each is timed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Accepted,
    /// Accepted before, by the other click.
    Repeated,
    Refused,
}

/// A latency that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timed {
    /// A step, from when it was due to its answer; an accepted payment, to its outcome.
    Step(Step, Answer),
    /// From when the payment was accepted to when the order was fulfilled, by its own times; with a good card only.
    PayToFulfilled,
    /// From when the order was accepted to when it was fulfilled, by its own times. Its buyer's thinking is in it.
    OrderToFulfilled,
}

impl Step {
    /// Returns its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Order => "order",
            Self::ComeBack => "come_back",
            Self::Payment => "payment",
            Self::Cancel => "cancel",
        }
    }
}

impl Timed {
    /// Returns its name in reports.
    pub const fn name(self) -> &'static str {
        use Answer::{Accepted, Refused, Repeated};
        match self {
            Self::Step(step, Accepted) => step.name(),
            Self::Step(Step::Claim, Repeated) => "claim_repeated",
            Self::Step(Step::Claim, Refused) => "claim_refused",
            Self::Step(Step::Order, Repeated) => "order_repeated",
            Self::Step(Step::Order, Refused) => "order_refused",
            Self::Step(Step::ComeBack, Repeated) => "come_back_repeated",
            Self::Step(Step::ComeBack, Refused) => "come_back_refused",
            Self::Step(Step::Payment, Repeated) => "payment_repeated",
            Self::Step(Step::Payment, Refused) => "payment_refused",
            Self::Step(Step::Cancel, Repeated) => "cancel_repeated",
            Self::Step(Step::Cancel, Refused) => "cancel_refused",
            Self::PayToFulfilled => "pay_to_fulfilled",
            Self::OrderToFulfilled => "order_to_fulfilled",
        }
    }

    /// Returns whether it is an accepted step.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Step(_, Answer::Accepted))
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for Timed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_is_explained_under_its_name() {
        let page = include_str!("../../../docs/operations.md");
        let refused = [Step::Claim, Step::Order, Step::ComeBack, Step::Payment, Step::Cancel];
        let refused = refused
            .into_iter()
            .flat_map(|step| [Timed::Step(step, Answer::Accepted), Timed::Step(step, Answer::Refused)]);
        let others = [
            Timed::Step(Step::Order, Answer::Repeated),
            Timed::Step(Step::ComeBack, Answer::Repeated),
            Timed::PayToFulfilled,
            Timed::OrderToFulfilled,
        ];
        for timed in refused.chain(others) {
            assert!(page.contains(&format!("`{}`", timed.name())), "docs/operations.md says nothing of {timed:?}");
        }
    }
}
