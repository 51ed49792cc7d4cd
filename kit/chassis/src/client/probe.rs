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
    let mut late = LateProbes::default();
    let mut probed = ProbedEndpoint::of(endpoint, replicas);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = probed.replicas.probe_now.notified() => {}
        }
        let Some(finding) = late.judge(health.check().await) else { continue };
        probed.learn(finding);
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
    /// Consecutive unanswered probes.
    silent: u32,
    ready: Option<Arc<Replica>>,
    /// A replica that was removed for unanswered probes, and may still answer the calls that it has.
    leaving: Option<Arc<Replica>>,
}

impl ProbedEndpoint {
    /// Returns an endpoint that is not ready so far.
    fn of(endpoint: Endpoint, replicas: Replicas) -> ProbedEndpoint {
        ProbedEndpoint { endpoint, replicas, silent: 0, ready: None, leaving: None }
    }

    /// Decides from the result of a probe whether the endpoint is ready.
    fn learn(&mut self, finding: Finding) {
        self.silent = if finding == Finding::Silent { self.silent.saturating_add(1) } else { 0 };
        match finding {
            Finding::Serving if self.ready.is_none() => self.insert(),
            Finding::Down => self.remove(),
            Finding::Silent if self.silent >= MAX_SILENT_PROBES => self.remove_unless_last(),
            Finding::Serving | Finding::Silent => {}
        }
        if self.silent >= MAX_SILENT_WITH_CALLS {
            self.end_calls();
        }
    }

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

    fn remove(&mut self) {
        let Some(replica) = self.ready.take() else { return };
        self.replicas.remove(&replica);
        self.warn(Finding::Down);
    }

    /// Removes a replica that answers no probes, but not the last one: under load an answer may be late, and to remove
    /// every slow endpoint would turn slow answers into none.
    fn remove_unless_last(&mut self) {
        if self.ready.as_ref().is_some_and(|replica| self.replicas.remove_unless_last(replica)) {
            self.leaving = self.ready.take();
            self.warn(Finding::Silent);
        }
    }

    fn warn(&self, finding: Finding) {
        tracing::warn!(server.address = %self.endpoint.uri(), probe.finding = ?finding, "endpoint is not ready");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(replicas: &Replicas) -> ProbedEndpoint {
        ProbedEndpoint::of(Endpoint::from_static("http://127.0.0.1:1"), replicas.clone())
    }

    /// Feeds results to an endpoint beside another that is ready. Returns whether it is ready after each.
    fn ready_after(findings: &[Finding]) -> Vec<bool> {
        let replicas = Replicas::new();
        let (mut other, mut probed) = (probed(&replicas), probed(&replicas));
        other.learn(Finding::Serving);
        let ready = findings.iter().map(|finding| {
            probed.learn(*finding);
            assert_eq!(replicas.count(), 1 + usize::from(probed.ready.is_some()));
            probed.ready.is_some()
        });
        ready.collect()
    }

    #[tokio::test]
    async fn an_endpoint_is_in_while_it_serves() {
        use Finding::{Down, Serving};
        assert_eq!(
            ready_after(&[Down, Serving, Serving, Down, Down, Serving]),
            [false, true, true, false, false, true]
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

    #[tokio::test]
    async fn one_late_answer_is_forgiven_and_two_are_not() {
        use Finding::{Serving, Silent};
        assert_eq!(
            ready_after(&[Silent, Serving, Silent, Serving, Silent, Silent, Silent]),
            [false, true, true, true, true, false, false]
        );
    }

    #[tokio::test]
    async fn the_last_endpoint_stays_in_for_silence_but_not_for_a_refusal() {
        let replicas = Replicas::new();
        let mut endpoints = [probed(&replicas), probed(&replicas)];
        endpoints.iter_mut().for_each(|endpoint| endpoint.learn(Finding::Serving));
        for _ in 0..10 {
            endpoints.iter_mut().for_each(|endpoint| endpoint.learn(Finding::Silent));
        }
        assert_eq!(endpoints.each_ref().map(|endpoint| endpoint.ready.is_some()), [false, true]);
        endpoints[1].learn(Finding::Down);
        assert_eq!(replicas.count(), 0);
    }
}
