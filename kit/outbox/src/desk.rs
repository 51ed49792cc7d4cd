//! The state that the parts of a relay share: which partitions it may send, and how far it is with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// A relay whose rounds are further apart stands still: each wait within a round has an end long before.
const STALLED: Duration = Duration::from_secs(30);

/// A lease as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub epoch: u64,
    /// It is to be given back as soon as nothing is on its way.
    pub is_leaving: bool,
}

/// The leases as of the last renewal.
#[derive(Debug, Clone)]
pub struct View {
    /// Grows with each new connection to the database: whatever was known before counts for nothing.
    pub generation: u64,
    pub leases: BTreeMap<u16, Lease>,
    /// Nothing is sent after this: the leases may have run out.
    pub valid_until: Instant,
    /// Whether others write whose commits do not wake this relay.
    pub has_others: bool,
}

impl View {
    /// No leases.
    pub fn none() -> Self {
        Self { generation: 0, leases: BTreeMap::new(), valid_until: Instant::now(), has_others: false }
    }
}

/// How far the sending is.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// That of the view under which the floors were found.
    pub generation: u64,
    pub floors: BTreeMap<u16, u64>,
    /// Partitions to be given back of which nothing is on its way any more.
    pub drained: BTreeSet<u16>,
    /// Until then it can send nothing, and gives its leases to others.
    pub broken_until: Option<Instant>,
}

/// Where the sending leaves its reports.
#[derive(Debug, Default)]
pub struct Desk {
    report: Mutex<Report>,
    /// Notified when a report should not wait for the next renewal.
    pub urgent: Notify,
    last_round: Mutex<Option<Instant>>,
}

impl Desk {
    /// Returns the last report.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Leaves a report.
    pub fn leave(&self, report: Report) {
        let is_urgent = {
            let mut last = lock(&self.report);
            let is_urgent = last.drained != report.drained || last.broken_until != report.broken_until;
            *last = report;
            is_urgent
        };
        if is_urgent {
            self.urgent.notify_one();
        }
    }

    /// Notes that a round begins now, or that there are no more: `None`.
    pub fn beat(&self, at: Option<Instant>) {
        *lock(&self.last_round) = at;
    }

    /// Returns whether the relay stands still, or cannot send.
    pub fn is_stalled(&self) -> bool {
        let is_late = lock(&self.last_round).is_some_and(|last| last.elapsed() > STALLED);
        is_late || lock(&self.report).broken_until.is_some_and(|until| Instant::now() < until)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_relay_stands_still_if_its_rounds_end_or_its_producer_is_broken() {
        let desk = Desk::default();
        assert!(!desk.is_stalled(), "it has not begun");
        desk.beat(Some(Instant::now()));
        tokio::time::advance(STALLED).await;
        assert!(!desk.is_stalled());
        tokio::time::advance(STALLED).await;
        assert!(desk.is_stalled());
        desk.beat(Some(Instant::now()));
        let until = Instant::now() + STALLED;
        desk.leave(Report { broken_until: Some(until), ..Report::default() });
        assert!(desk.is_stalled());
        tokio::time::advance(STALLED).await;
        desk.beat(None);
        assert!(!desk.is_stalled());
    }
}
