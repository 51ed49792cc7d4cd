//! A cache of the outcomes that this process has committed lately. The provider sends a notice of each charge besides
//! its answer, so most notices are duplicates: the cache knows them without locking the payment.
//!
//! An outcome never changes, so there is nothing to invalidate. A miss only costs a transaction that changes nothing.

use crate::domain::{AttemptKey, Outcome};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most outcomes in the cache, some hundred bytes each: the notices of many seconds of a rush.
const MAX_CACHED: usize = 8_192;

/// The cache of recent outcomes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentEnds {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    ends: HashMap<AttemptKey, Outcome>,
    /// The keys of `ends`, the oldest first.
    ages: VecDeque<AttemptKey>,
}

impl RecentEnds {
    /// Returns whether this attempt is known to have ended with exactly this outcome.
    pub(super) fn have(&self, key: AttemptKey, outcome: &Outcome) -> bool {
        self.memory().ends.get(&key) == Some(outcome)
    }

    /// Adds outcomes, which must have been committed, and evicts the oldest.
    pub(super) fn remember(&self, ends: Vec<(AttemptKey, Outcome)>) {
        let mut memory = self.memory();
        for (key, outcome) in ends {
            memory.remember(key, outcome);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Keeps the first outcome of an attempt: it is the one that ended it.
    fn remember(&mut self, key: AttemptKey, outcome: Outcome) {
        let Entry::Vacant(unknown) = self.ends.entry(key) else { return };
        unknown.insert(outcome);
        self.ages.push_back(key);
        if self.ages.len() > MAX_CACHED
            && let Some(oldest) = self.ages.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{Money, PaymentId};
    use uuid::Uuid;

    fn key(payment: usize) -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(Uuid::from_u128(payment as u128)), attempt: 1 }
    }

    fn captured(charge_id: &str) -> Outcome {
        Outcome::Captured { charge_id: Some(charge_id.to_owned()), amount: Money::new(500, "EUR".parse().unwrap()) }
    }

    fn declined(code: &str) -> Outcome {
        Outcome::Declined { code: code.to_owned() }
    }

    #[test]
    fn only_the_same_end_of_the_same_attempt_is_known() {
        let ends = RecentEnds::default();
        ends.remember(vec![(key(1), captured("ch_1")), (key(2), declined("card_declined"))]);
        assert!(ends.have(key(1), &captured("ch_1")));
        assert!(ends.have(key(2), &declined("card_declined")));
        for other in [captured("ch_2"), declined("card_declined"), Outcome::Unresolved] {
            assert!(!ends.have(key(1), &other), "{other:?}");
        }
        assert!(!ends.have(key(2), &declined("insufficient_funds")));
        assert!(!ends.have(key(3), &captured("ch_1")));
        assert!(!ends.have(AttemptKey { attempt: 2, ..key(1) }, &captured("ch_1")));
    }

    #[test]
    fn the_outcome_that_came_first_stays() {
        let ends = RecentEnds::default();
        ends.remember(vec![(key(1), captured("ch_1")), (key(1), captured("ch_2"))]);
        assert!(ends.have(key(1), &captured("ch_1")));
        assert!(!ends.have(key(1), &captured("ch_2")));
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_the_memory_stays_bounded() {
        let ends = RecentEnds::default();
        ends.remember((0..MAX_CACHED).map(|payment| (key(payment), captured("ch"))).collect());
        assert!(ends.have(key(0), &captured("ch")));
        // A repeat: it takes no place, and does not become newer.
        ends.remember(vec![(key(0), captured("ch"))]);
        ends.remember(vec![(key(MAX_CACHED), captured("ch"))]);
        assert!(!ends.have(key(0), &captured("ch")));
        assert!(ends.have(key(1), &captured("ch")));
        assert!(ends.have(key(MAX_CACHED), &captured("ch")));
        let memory = ends.memory();
        assert_eq!((memory.ends.len(), memory.ages.len()), (MAX_CACHED, MAX_CACHED));
    }
}
