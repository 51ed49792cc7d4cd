//! Probes the health of each endpoint, and keeps the set of ready replicas.
//!
//! An endpoint is added when it reports SERVING, and removed when it reports anything else, refuses the connection, or
//! does not answer. After a report it finishes its calls; after several unanswered probes its calls fail.

use super::replicas::{Replica, Replicas};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Time between two probes of an endpoint.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// Timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Latest that the end of a probe may be noticed. After that this process itself was stalled, and a missing answer says
/// nothing about the endpoint.
const MAX_LATENESS: Duration = Duration::from_millis(100);

/// Most consecutive late probes that are ignored: a process that is always late would never find a dead endpoint.
const MAX_LATE_PROBES: u32 = 4;

/// Consecutive unanswered probes before an endpoint is removed.
const MAX_SILENT_PROBES: u32 = 2;

/// Consecutive unanswered probes before its calls are failed. It is higher, since a busy machine answers late, and
/// retries elsewhere would add load.
const MAX_SILENT_WITH_CALLS: u32 = 4;

/// Result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Serving,
    /// The endpoint said so, or refused the connection.
    Down,
    /// No answer in time: dead, unreachable, or busy.
    Silent,
}

/// Probes one endpoint for as long as the task lives.
pub(super) async fn probe(endpoint: Endpoint, replicas: Replicas) {
    let mut health = HealthProbe::of(&endpoint);
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut health_state, mut late) = (HealthState::default(), LateProbes::default());
    let mut probed = ProbedEndpoint { endpoint, replicas, ready: None, leaving: None };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = probed.replicas.probe_now.notified() => {}
        }
        let Some(finding) = late.judge(health.check().await) else { continue };
        // The count includes this endpoint only while it is ready, so 1 means that it is the last one.
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

/// The connection for the probes of one endpoint.
pub(super) struct HealthProbe {
    endpoint: Endpoint,
    client: HealthClient<Channel>,
}

impl HealthProbe {
    pub(super) fn of(endpoint: &Endpoint) -> HealthProbe {
        let endpoint = endpoint.clone().connect_timeout(PROBE_TIMEOUT);
        HealthProbe { client: HealthClient::new(endpoint.connect_lazy()), endpoint }
    }

    /// Probes the endpoint once. Returns also how late the end of the probe was noticed.
    pub(super) async fn check(&mut self) -> (Finding, Duration) {
        let give_up = Instant::now() + PROBE_TIMEOUT;
        let finding = match timeout_at(give_up, self.ask()).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Finding::Serving,
            Ok(_) => Finding::Down,
            Err(_) => Finding::Silent,
        };
        (finding, give_up.elapsed())
    }

    /// Asks for the health, once more on a new connection if the old one breaks: a server closes old connections, and a
    /// probe that was under way on one says nothing of it.
    async fn ask(&mut self) -> Result<Response<HealthCheckResponse>, Status> {
        match self.client.check(HealthCheckRequest::default()).await {
            // An answer of the server has no source.
            Err(broken) if broken.source().is_some() => {
                self.client = HealthClient::new(self.endpoint.connect_lazy());
                self.client.check(HealthCheckRequest::default()).await
            }
            answer => answer,
        }
    }
}

/// Ignores unanswered probes whose end was noticed late.
#[derive(Default)]
struct LateProbes {
    in_a_row: u32,
}

impl LateProbes {
    /// Returns the result of a probe; `None` if this process was stalled too long to tell.
    fn judge(&mut self, (finding, lateness): (Finding, Duration)) -> Option<Finding> {
        let is_late = finding == Finding::Silent && lateness > MAX_LATENESS;
        self.in_a_row = if is_late { self.in_a_row.saturating_add(1) } else { 0 };
        (!is_late || self.in_a_row > MAX_LATE_PROBES).then_some(finding)
    }
}

/// One endpoint, and its replica while that is ready.
struct ProbedEndpoint {
    endpoint: Endpoint,
    replicas: Replicas,
    ready: Option<Arc<Replica>>,
    /// A replica that was removed for unanswered probes, and may still answer the calls that it has.
    leaving: Option<Arc<Replica>>,
}

impl ProbedEndpoint {
    /// Adds the replica, with a new connection: the old one may be dead without notice.
    fn insert(&mut self) {
        tracing::debug!(server.address = %self.endpoint.uri(), "endpoint is ready");
        let replica = Replica::at(&self.endpoint);
        self.replicas.insert(&replica);
        self.ready = Some(replica);
        // The endpoint answers again, so it may answer the old calls too. If it is another process, keep-alive ends
        // them.
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

    /// Fails the calls of a removed replica that still does not answer. Retries go to others.
    fn end_calls(&mut self) {
        if let Some(replica) = self.leaving.take() {
            replica.fall_silent();
        }
    }
}

impl Drop for ProbedEndpoint {
    /// An endpoint whose address is gone is not probed any more, and takes no new calls.
    fn drop(&mut self) {
        if let Some(replica) = self.ready.take() {
            self.replicas.remove(&replica);
        }
    }
}

/// Decides from the results of probes whether an endpoint is ready.
#[derive(Default)]
struct HealthState {
    is_in: bool,
    silent: u32,
}

impl HealthState {
    /// Returns whether the endpoint is ready now, if that has changed.
    ///
    /// The last one is not removed for unanswered probes: under load an answer may be late, and to remove every slow
    /// endpoint would turn slow answers into none.
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

    /// Feeds results to an endpoint that is not the last, and returns the changes.
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
