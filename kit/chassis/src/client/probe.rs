//! Finds out which endpoints are ready, by asking each for its health, and tells the balance.
//!
//! A balance that is given an endpoint believes in it; so an endpoint is put in when it says
//! SERVING, and taken out when it says otherwise, refuses the connection, or stays silent.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::transport::{Channel, Endpoint, channel::Change};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Time between two probes of an endpoint.
const PERIOD: Duration = Duration::from_millis(250);

/// How long an endpoint has to answer a probe.
const PATIENCE: Duration = Duration::from_millis(200);

/// Silent probes in a row after which an endpoint counts as gone.
const SILENT_IN_A_ROW: u32 = 2;

/// What the probes of one mesh share.
#[derive(Clone)]
pub(crate) struct Board {
    /// Which endpoints the balance has.
    pub(crate) changes: mpsc::Sender<Change<String, Endpoint>>,
    /// How many that are.
    pub(crate) ready: watch::Sender<usize>,
    /// Notified when a call found an endpoint dead: probe now.
    pub(crate) suspicion: Arc<Notify>,
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
pub(crate) async fn probe(endpoint: Endpoint, board: Board) {
    let mut health = HealthClient::new(endpoint.clone().connect_timeout(PATIENCE).connect_lazy());
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut standing = Standing::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = board.suspicion.notified() => {}
        }
        let finding = ask(&mut health).await;
        let is_last = *board.ready.borrow() == 1;
        match standing.learn(finding, is_last) {
            Some(true) => put_in(&endpoint, &board).await,
            Some(false) => take_out(&endpoint, &board, finding).await,
            None => {}
        }
    }
}

async fn ask(health: &mut HealthClient<Channel>) -> Finding {
    match timeout(PATIENCE, health.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Finding::Serving,
        Ok(_) => Finding::Down,
        Err(_) => Finding::Silent,
    }
}

async fn put_in(endpoint: &Endpoint, board: &Board) {
    tracing::debug!(server.address = %endpoint.uri(), "endpoint is ready");
    let insert = Change::Insert(endpoint.uri().to_string(), endpoint.clone());
    if board.changes.send(insert).await.is_ok() {
        board.ready.send_modify(|ready| *ready += 1);
    }
}

async fn take_out(endpoint: &Endpoint, board: &Board, finding: Finding) {
    tracing::warn!(server.address = %endpoint.uri(), probe.finding = ?finding, "endpoint is not ready");
    board.ready.send_modify(|ready| *ready -= 1);
    // If the balance is gone, so is the need to tell it.
    let _ = board.changes.send(Change::Remove(endpoint.uri().to_string())).await;
}

/// What is held of one endpoint.
#[derive(Default)]
struct Standing {
    is_in: bool,
    silent: u32,
}

impl Standing {
    /// Whether the endpoint is now to be put in or taken out.
    ///
    /// The last one is not taken out for silence: under load an answer may be late, and to take
    /// out all that are slow would turn slow answers into none.
    fn learn(&mut self, finding: Finding, is_last: bool) -> Option<bool> {
        self.silent = if finding == Finding::Silent { self.silent.saturating_add(1) } else { 0 };
        let should_be_in = match finding {
            Finding::Serving => true,
            Finding::Down => false,
            Finding::Silent => self.is_in && (is_last || self.silent < SILENT_IN_A_ROW),
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
        let mut standing = Standing::default();
        findings.iter().map(|finding| standing.learn(*finding, false)).collect()
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
        let mut standing = Standing::default();
        standing.learn(Finding::Serving, false);
        for _ in 0..10 {
            assert_eq!(standing.learn(Finding::Silent, true), None);
        }
        assert_eq!(standing.learn(Finding::Down, true), Some(false));
    }
}
