//! Probes the health of each endpoint, and keeps the list of those that are ready.
//!
//! An endpoint is inserted when it says SERVING, and removed when it says otherwise, refuses the connection, or does
//! not answer. One that says so finishes the calls that it has; those of one that goes on not to answer fail.

use super::replicas::{Replica, Replicas};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Time between two probes of an endpoint.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long an endpoint has to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// How late the end of a probe may be noticed. If it is later, this process was held up itself, and that no answer has
/// arrived says nothing about the endpoint.
const MAX_LATENESS: Duration = Duration::from_millis(100);

/// Late probes in a row that are passed over: a process that is always late would never find a silent endpoint.
const MAX_LATE_PROBES: u32 = 4;

/// Silent probes in a row after which an endpoint counts as gone.
const MAX_SILENT_PROBES: u32 = 2;

/// Silent probes in a row after which its calls are ended: more, since a machine that is merely busy answers late, and
/// to make its calls once more elsewhere would make it busier.
const MAX_SILENT_WITH_CALLS: u32 = 4;

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
pub(super) async fn probe(endpoint: Endpoint, replicas: Replicas) {
    let mut health = HealthClient::new(endpoint.clone().connect_timeout(PROBE_TIMEOUT).connect_lazy());
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut health_state, mut late) = (HealthState::default(), LateProbes::default());
    let mut probed = ProbedEndpoint { endpoint, replicas, ready: None, leaving: None };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = probed.replicas.probe_now.notified() => {}
        }
        let Some(finding) = late.judge(check(&mut health).await) else { continue };
        // The count includes this endpoint only while it is in, so 1 means that it is the last one.
        let is_last = probed.replicas.count() == 1;
        match health_state.learn(finding, is_last) {
            Some(true) => probed.insert(),
            Some(false) => probed.remove(finding),
            None => {}
        }
        if health_state.silent >= MAX_SILENT_WITH_CALLS {
            probed.end_calls();
        }
    }
}

/// Probes the endpoint once. Returns also how late the end of the probe was noticed.
async fn check(health: &mut HealthClient<Channel>) -> (Finding, Duration) {
    let give_up = Instant::now() + PROBE_TIMEOUT;
    let finding = match timeout_at(give_up, health.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Finding::Serving,
        Ok(_) => Finding::Down,
        Err(_) => Finding::Silent,
    };
    (finding, give_up.elapsed())
}

/// Passes over probes without an answer whose end came late.
#[derive(Default)]
struct LateProbes {
    in_a_row: u32,
}

impl LateProbes {
    /// Returns what a probe says of the endpoint; nothing if this process was held up so long that it cannot say.
    fn judge(&mut self, (finding, lateness): (Finding, Duration)) -> Option<Finding> {
        let is_late = finding == Finding::Silent && lateness > MAX_LATENESS;
        self.in_a_row = if is_late { self.in_a_row.saturating_add(1) } else { 0 };
        (!is_late || self.in_a_row > MAX_LATE_PROBES).then_some(finding)
    }
}

/// One endpoint, and the replica there while it is ready.
struct ProbedEndpoint {
    endpoint: Endpoint,
    replicas: Replicas,
    ready: Option<Arc<Replica>>,
    /// One that is out since it was silent, and may still answer the calls that it has.
    leaving: Option<Arc<Replica>>,
}

impl ProbedEndpoint {
    /// Adds the replica, with a new connection: one of before may be dead without having said so.
    fn insert(&mut self) {
        tracing::debug!(server.address = %self.endpoint.uri(), "endpoint is ready");
        let replica = Replica::at(&self.endpoint);
        self.replicas.insert(&replica);
        self.ready = Some(replica);
        // It answers again, and so it may answer its calls; if it is another process, the keepalive ends them.
        self.leaving = None;
    }

    fn remove(&mut self, finding: Finding) {
        tracing::warn!(server.address = %self.endpoint.uri(), probe.finding = ?finding, "endpoint is not ready");
        let Some(replica) = self.ready.take() else { return };
        self.replicas.remove(&replica);
        if finding == Finding::Silent {
            self.leaving = Some(replica);
        }
    }

    /// Ends the calls of a replica that is out and goes on to be silent. Who tries again does not meet it.
    fn end_calls(&mut self) {
        if let Some(replica) = self.leaving.take() {
            replica.fall_silent();
        }
    }
}

impl Drop for ProbedEndpoint {
    /// An endpoint that is not probed any more, since its address is gone, takes no new calls.
    fn drop(&mut self) {
        if let Some(replica) = self.ready.take() {
            self.replicas.remove(&replica);
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
    fn a_probe_that_ends_late_is_passed_over_a_few_times_in_a_row() {
        let (in_time, late) = (Duration::from_millis(5), MAX_LATENESS + Duration::from_millis(1));
        let mut probes = LateProbes::default();
        assert_eq!(probes.judge((Finding::Silent, in_time)), Some(Finding::Silent));
        assert_eq!(probes.judge((Finding::Serving, late)), Some(Finding::Serving), "an answer is one");
        for _ in 0..2 {
            for _ in 0..MAX_LATE_PROBES {
                assert_eq!(probes.judge((Finding::Silent, late)), None);
            }
            assert_eq!(probes.judge((Finding::Down, late)), Some(Finding::Down));
        }
        let judged: Vec<_> = (0..=MAX_LATE_PROBES).map(|_| probes.judge((Finding::Silent, late))).collect();
        assert_eq!(judged.last(), Some(&Some(Finding::Silent)), "it is late for too long");
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
