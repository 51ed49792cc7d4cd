//! The state that the tasks of a relay share: its leases, and the progress of its sending.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// A relay is stalled if its last round began longer ago, as every wait within a round has a shorter time-out; or if it
/// has renewed no leases for longer, or got no acknowledgement although messages wait.
const STALLED: Duration = Duration::from_secs(30);

/// A lease as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub epoch: u64,
    /// It is released as soon as nothing of it is in flight.
    pub is_leaving: bool,
}

/// The leases as of the last renewal.
#[derive(Debug, Clone)]
pub struct View {
    /// Incremented with each new connection to the database, which invalidates all earlier state.
    pub generation: u64,
    pub leases: BTreeMap<u16, Lease>,
    /// Nothing is sent after this: the leases may have expired.
    pub valid_until: Instant,
    /// Whether other replicas are alive, whose commits do not wake this relay.
    pub has_others: bool,
}

impl View {
    /// No leases.
    pub fn none() -> Self {
        Self { generation: 0, leases: BTreeMap::new(), valid_until: Instant::now(), has_others: false }
    }
}

/// The progress of the sending.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Generation of the view that the floors belong to.
    pub generation: u64,
    pub floors: BTreeMap<u16, u64>,
    /// Partitions to be released that have nothing in flight any more.
    pub drained: BTreeSet<u16>,
    /// Until then its producer is broken, and it releases its leases to others.
    pub broken_until: Option<Instant>,
    /// Since when messages wait and none was acknowledged; `None` while none waits.
    pub waiting_since: Option<Instant>,
}

/// The shared state: the last report, the heartbeat of the sending, and the last renewal of the leases.
#[derive(Debug, Default)]
pub struct Shared {
    report: Mutex<Report>,
    /// Notified when a report should not wait for the next renewal.
    pub urgent: Notify,
    last_round: Mutex<Option<Instant>>,
    last_renewal: Mutex<Option<Instant>>,
}

impl Shared {
    /// Returns the last report.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Publishes a report.
    pub fn publish(&self, report: Report) {
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

    /// Notes when a round began; `None` if there are no more rounds.
    pub fn heartbeat(&self, at: Option<Instant>) {
        *lock(&self.last_round) = at;
    }

    /// Notes when leases were renewed; `None` if they are not to be renewed any more.
    pub fn renewed(&self, at: Option<Instant>) {
        *lock(&self.last_renewal) = at;
    }

    /// Returns whether the relay is stalled, or cannot send.
    pub fn is_stalled(&self) -> bool {
        let is_long_ago = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() > STALLED);
        let Report { broken_until, waiting_since, .. } = self.report();
        let is_broken = broken_until.is_some_and(|until| Instant::now() < until);
        is_broken
            || is_long_ago(*lock(&self.last_round))
            || is_long_ago(*lock(&self.last_renewal))
            || is_long_ago(waiting_since)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_stalled_if_its_rounds_end_or_its_producer_is_broken() {
        let shared = Shared::default();
        assert!(!shared.is_stalled(), "it has not begun");
        shared.heartbeat(Some(Instant::now()));
        tokio::time::advance(STALLED).await;
        assert!(!shared.is_stalled());
        tokio::time::advance(STALLED).await;
        assert!(shared.is_stalled());
        shared.heartbeat(Some(Instant::now()));
        let until = Instant::now() + STALLED;
        shared.publish(Report { broken_until: Some(until), ..Report::default() });
        assert!(shared.is_stalled());
        tokio::time::advance(STALLED).await;
        shared.heartbeat(None);
        assert!(!shared.is_stalled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_stalled_while_no_lease_is_renewed_or_nothing_of_what_waits_is_acknowledged() {
        let shared = Shared::default();
        let begun = Instant::now();
        shared.renewed(Some(begun));
        tokio::time::advance(STALLED).await;
        assert!(!shared.is_stalled());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(shared.is_stalled(), "the leases are not renewed");
        shared.renewed(Some(Instant::now()));
        assert!(!shared.is_stalled());
        shared.publish(Report { waiting_since: Some(begun), ..Report::default() });
        assert!(shared.is_stalled(), "nothing is acknowledged");
        shared.publish(Report::default());
        assert!(!shared.is_stalled(), "nothing waits");
        tokio::time::advance(2 * STALLED).await;
        shared.renewed(None);
        assert!(!shared.is_stalled(), "it has left");
    }
}
