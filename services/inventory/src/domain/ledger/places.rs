//! Places of arrival, which Redis gives, and of which the ledger commits none for two orders.
//!
//! No row of the ledger is looked for by its place. Redis gives places in the order of time, so the last one of each
//! item and its time show that Redis was rolled back to an earlier copy, which gives the places behind that copy again.

use crate::domain::{Grant, LastGrant};
use stampede_vocab::EventId;
use std::collections::{BTreeMap, BTreeSet};

/// The places of a batch. Its grants are compared with those that were committed before it: within the batch they may
/// be in any order.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The last grants of all items of an event, as they were read.
    last_grants: BTreeMap<EventId, Vec<LastGrant>>,
    committed: BTreeSet<(EventId, i64)>,
    /// Events with a grant whose place another order has, or most likely has.
    rolled_back: BTreeSet<EventId>,
}

impl Places {
    pub(super) fn after(last_grants: BTreeMap<EventId, Vec<LastGrant>>) -> Self {
        Self { last_grants, ..Self::default() }
    }

    /// Returns whether a new order may have its place. It may not if an earlier order has it, or most likely has: Redis
    /// had given places beyond it before it granted this one.
    pub(super) fn allow(&mut self, grant: &Grant) -> bool {
        let mut last_grants = self.last_grants.get(&grant.event_id).into_iter().flatten();
        let is_behind = last_grants.any(|last| last.rules_out(grant.arrival, grant.granted_at));
        let is_taken = is_behind || self.committed.contains(&(grant.event_id, grant.arrival));
        if is_taken {
            self.rolled_back.insert(grant.event_id);
        }
        !is_taken
    }

    /// Notes that the order with this place was committed.
    pub(super) fn commit(&mut self, grant: &Grant) {
        self.committed.insert((grant.event_id, grant.arrival));
    }

    /// Returns the events of which Redis may have been rolled back, each with the last place that the ledger has after
    /// the batch. If Redis has given that place too, it was not, or gives new places again: then only the grant came
    /// late, as one does whose hold was left from before, or that was granted just after the clock was set back.
    pub(super) fn rolled_back(&self) -> BTreeMap<EventId, i64> {
        self.rolled_back.iter().map(|event| (*event, self.last_place(*event))).collect()
    }

    fn last_place(&self, event: EventId) -> i64 {
        let read = self.last_grants.get(&event).into_iter().flatten().map(|last| last.arrival);
        let committed = self.committed.iter().filter(|(of, _)| *of == event).map(|(_, arrival)| *arrival);
        read.chain(committed).max().unwrap_or(0)
    }
}
