//! A cache of the outcomes that this process has committed lately. The provider sends a notice of each charge besides
//! its answer, so most notices are duplicates. The cache recognises them without a lock on the payment.
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
pub(super) struct RecentOutcomes {
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug, Default)]
struct Cache {
    outcomes: HashMap<AttemptKey, Outcome>,
    /// The keys of `outcomes`, the oldest first.
    oldest_first: VecDeque<AttemptKey>,
}

impl RecentOutcomes {
    /// Returns whether this attempt is known to have ended with exactly this outcome.
    pub(super) fn contains(&self, key: AttemptKey, outcome: &Outcome) -> bool {
        self.cache().outcomes.get(&key) == Some(outcome)
    }

    /// Adds outcomes, which must have been committed, and evicts the oldest.
    pub(super) fn add(&self, outcomes: Vec<(AttemptKey, Outcome)>) {
        let mut cache = self.cache();
        for (key, outcome) in outcomes {
            cache.insert(key, outcome);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Keeps the first outcome of an attempt: it is the one that ended it.
    fn insert(&mut self, key: AttemptKey, outcome: Outcome) {
        let Entry::Vacant(unknown) = self.outcomes.entry(key) else { return };
        unknown.insert(outcome);
        self.oldest_first.push_back(key);
        if self.oldest_first.len() > MAX_CACHED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.outcomes.remove(&oldest);
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
        let outcomes = RecentOutcomes::default();
        outcomes.add(vec![(key(1), captured("ch_1")), (key(2), declined("card_declined"))]);
        assert!(outcomes.contains(key(1), &captured("ch_1")));
        assert!(outcomes.contains(key(2), &declined("card_declined")));
        for other in [captured("ch_2"), declined("card_declined"), Outcome::Unresolved] {
            assert!(!outcomes.contains(key(1), &other), "{other:?}");
        }
        assert!(!outcomes.contains(key(2), &declined("insufficient_funds")));
        assert!(!outcomes.contains(key(3), &captured("ch_1")));
        assert!(!outcomes.contains(AttemptKey { attempt: 2, ..key(1) }, &captured("ch_1")));
    }

    #[test]
    fn the_outcome_that_came_first_stays() {
        let outcomes = RecentOutcomes::default();
        outcomes.add(vec![(key(1), captured("ch_1")), (key(1), captured("ch_2"))]);
        assert!(outcomes.contains(key(1), &captured("ch_1")));
        assert!(!outcomes.contains(key(1), &captured("ch_2")));
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_the_memory_stays_bounded() {
        let outcomes = RecentOutcomes::default();
        outcomes.add((0..MAX_CACHED).map(|payment| (key(payment), captured("ch"))).collect());
        assert!(outcomes.contains(key(0), &captured("ch")));
        // A repeat: it takes no place, and does not become newer.
        outcomes.add(vec![(key(0), captured("ch"))]);
        outcomes.add(vec![(key(MAX_CACHED), captured("ch"))]);
        assert!(!outcomes.contains(key(0), &captured("ch")));
        assert!(outcomes.contains(key(1), &captured("ch")));
        assert!(outcomes.contains(key(MAX_CACHED), &captured("ch")));
        let cache = outcomes.cache();
        assert_eq!((cache.outcomes.len(), cache.oldest_first.len()), (MAX_CACHED, MAX_CACHED));
    }
}
