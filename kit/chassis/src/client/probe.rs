//! Probes the health of each endpoint, and keeps the load balancer at those that are ready.
//!
//! The balancer of tonic does no health checks of its own. An endpoint is inserted when it says
//! SERVING, and removed when it says otherwise, refuses the connection, or does not answer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::transport::{Channel, Endpoint, channel::Change};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Time between two probes of an endpoint.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long an endpoint has to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Silent probes in a row after which an endpoint counts as gone.
const MAX_SILENT_PROBES: u32 = 2;

/// The channels that the probes of one mesh share.
#[derive(Clone)]
pub(crate) struct ProbeChannels {
    /// Inserts endpoints into the balancer and removes them.
    pub(crate) changes: mpsc::Sender<Change<String, Endpoint>>,
    /// How many endpoints are ready.
    pub(crate) ready: watch::Sender<usize>,
    /// Notified when a call could not connect, so that the next probe does not wait for its tick.
    pub(crate) probe_now: Arc<Notify>,
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Serving,
    /// It said so itself, or nobody listens.
    Down,
    /// No answer in time: dead, cut off, or merely busy.
    Silent,
}

/// Probes one endpoint for as long as the task lives.
pub(crate) async fn probe(endpoint: Endpoint, channels: ProbeChannels) {
    let mut health = HealthClient::new(endpoint.clone().connect_timeout(PROBE_TIMEOUT).connect_lazy());
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut health_state = HealthState::default();
    let probe_now = channels.probe_now.clone();
    let mut balanced = BalancedEndpoint { endpoint, channels, is_balanced: false };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = probe_now.notified() => {}
        }
        let finding = check(&mut health).await;
        // The count includes this endpoint only while it is in, so 1 means that it is the last one.
        let is_last = *balanced.channels.ready.borrow() == 1;
        if let Some(is_in) = health_state.learn(finding, is_last) {
            balanced.count(is_in, finding);
        }
        // On every probe, not only after a change: an earlier update may not have found room.
        balanced.update(health_state.is_in);
    }
}

async fn check(health: &mut HealthClient<Channel>) -> Finding {
    match timeout(PROBE_TIMEOUT, health.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Finding::Serving,
        Ok(_) => Finding::Down,
        Err(_) => Finding::Silent,
    }
}

/// One endpoint, and whether the balancer has it.
struct BalancedEndpoint {
    endpoint: Endpoint,
    channels: ProbeChannels,
    /// Whether the last update that was sent inserted it.
    is_balanced: bool,
}

impl BalancedEndpoint {
    /// Counts the endpoint as ready or no longer. Callers wait for this count, not for the balancer: that one reads its
    /// updates only when it is called, so to wait for it before a call would be a deadlock.
    fn count(&self, is_in: bool, finding: Finding) {
        if is_in {
            tracing::debug!(server.address = %self.endpoint.uri(), "endpoint is ready");
            self.channels.ready.send_modify(|ready| *ready += 1);
        } else {
            tracing::warn!(server.address = %self.endpoint.uri(), probe.finding = ?finding, "endpoint is not ready");
            self.channels.ready.send_modify(|ready| *ready -= 1);
        }
    }

    /// Sends the balancer an update if it needs one. Without room for it the next probe tries again: to wait would stop
    /// the probes for as long as nobody calls.
    fn update(&mut self, is_in: bool) {
        if self.is_balanced == is_in {
            return;
        }
        let name = self.endpoint.uri().to_string();
        let change = if is_in { Change::Insert(name, self.endpoint.clone()) } else { Change::Remove(name) };
        match self.channels.changes.try_send(change) {
            // A balancer that is gone needs no updates.
            Ok(()) | Err(TrySendError::Closed(_)) => self.is_balanced = is_in,
            Err(TrySendError::Full(_)) => {}
        }
    }
}

/// Decides from the findings whether an endpoint is in.
#[derive(Default)]
struct HealthState {
    is_in: bool,
    silent: u32,
}

impl HealthState {
    /// Returns whether the endpoint is now in, if that has changed.
    ///
    /// The last one is not removed for silence: under load an answer may be late, and to remove
    /// every slow endpoint would turn slow answers into none.
    fn learn(&mut self, finding: Finding, is_last: bool) -> Option<bool> {
        self.silent = if finding == Finding::Silent { self.silent.saturating_add(1) } else { 0 };
        let should_be_in = match finding {
            Finding::Serving => true,
            Finding::Down => false,
            Finding::Silent => self.is_in && (is_last || self.silent < MAX_SILENT_PROBES),
        };
        let changed = should_be_in != self.is_in;
        self.is_in = should_be_in;
        changed.then_some(should_be_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_balancer_without_room_is_updated_later_and_nobody_waits() {
        let (changes, mut updates) = mpsc::channel(1);
        let channels = ProbeChannels { changes, ready: watch::Sender::new(0), probe_now: Arc::new(Notify::new()) };
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        let mut balanced = BalancedEndpoint { endpoint, channels, is_balanced: false };
        for is_in in [true, false, true] {
            balanced.count(is_in, Finding::Serving);
            balanced.update(is_in);
        }
        assert_eq!(*balanced.channels.ready.borrow(), 1, "callers go by the newest");
        assert!(matches!(updates.recv().await, Some(Change::Insert(..))));
        balanced.update(true);
        assert!(updates.try_recv().is_err(), "it knows already");
        balanced.update(false);
        assert!(matches!(updates.try_recv(), Ok(Change::Remove(_))));
    }

    /// Feeds findings to an endpoint that is not the last, and gives the changes.
    fn changes(findings: &[Finding]) -> Vec<Option<bool>> {
        let mut health_state = HealthState::default();
        findings.iter().map(|finding| health_state.learn(*finding, false)).collect()
    }

    #[test]
    fn an_endpoint_is_in_while_it_serves() {
        use Finding::{Down, Serving};
        assert_eq!(
            changes(&[Down, Serving, Serving, Down, Down, Serving]),
            [None, Some(true), None, Some(false), None, Some(true)]
        );
    }

    #[test]
    fn one_late_answer_is_forgiven_and_two_are_not() {
        use Finding::{Serving, Silent};
        assert_eq!(
            changes(&[Silent, Serving, Silent, Serving, Silent, Silent, Silent]),
            [None, Some(true), None, None, None, Some(false), None]
        );
    }

    #[test]
    fn the_last_endpoint_stays_in_for_silence_but_not_for_a_refusal() {
        let mut health_state = HealthState::default();
        health_state.learn(Finding::Serving, false);
        for _ in 0..10 {
            assert_eq!(health_state.learn(Finding::Silent, true), None);
        }
        assert_eq!(health_state.learn(Finding::Down, true), Some(false));
    }
}
