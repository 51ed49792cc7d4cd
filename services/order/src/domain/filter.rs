//! The filter of a list of orders.

use super::StateName;
use stampede_vocab::{InvalidField, Timestamp};
use std::{collections::BTreeSet, fmt};

/// The filter of a list of orders. The default matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// The states to list; empty for all.
    pub states: BTreeSet<StateName>,
    /// Accepted at this time or later; `None` for all.
    pub from: Option<Timestamp>,
    /// Accepted before this time; `None` for all.
    pub until: Option<Timestamp>,
}

impl OrderFilter {
    /// Fails if the range of time is empty.
    pub fn new(
        states: BTreeSet<StateName>,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Self, InvalidField> {
        if from.zip(until).is_some_and(|(from, until)| from >= until) {
            return Err(InvalidField::new("create_time_until", "must be later than create_time_from"));
        }
        Ok(Self { states, from, until })
    }
}

/// The filter as part of the name of a list, which page tokens carry; empty for the default.
impl fmt::Display for OrderFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for state in &self.states {
            write!(f, "-{}", state.as_str())?;
        }
        if let Some(from) = self.from {
            write!(f, "-from-{}", from.micros())?;
        }
        if let Some(until) = self.until {
            write!(f, "-until-{}", until.micros())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(micros))
    }

    #[test]
    fn a_range_without_any_time_is_refused() {
        for (from, until) in [(None, None), (at(5), None), (None, at(5)), (at(5), at(6))] {
            assert!(OrderFilter::new(BTreeSet::new(), from, until).is_ok());
        }
        for until in [at(4), at(5)] {
            assert_eq!(OrderFilter::new(BTreeSet::new(), at(5), until).unwrap_err().field, "create_time_until");
        }
    }

    #[test]
    fn another_filter_has_another_name() {
        let states = |names: &[StateName]| names.iter().copied().collect::<BTreeSet<_>>();
        let names = [
            OrderFilter::default(),
            OrderFilter { states: states(&[StateName::Paid]), ..OrderFilter::default() },
            OrderFilter { states: states(&[StateName::Paid, StateName::Paying]), ..OrderFilter::default() },
            OrderFilter { from: at(5), ..OrderFilter::default() },
            OrderFilter { until: at(5), ..OrderFilter::default() },
        ]
        .map(|filter| filter.to_string());
        assert_eq!(names[0], "");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        let turned = OrderFilter { states: states(&[StateName::Paying, StateName::Paid]), ..OrderFilter::default() };
        assert_eq!(turned.to_string(), names[2], "the sequence does not count");
    }
}
