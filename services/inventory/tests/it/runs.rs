//! Which seeds a test of histories plays, how far it is, and what it says of those that failed.

use stampede_proto::inventory::v1::{self as proto, inventory_service_client::InventoryServiceClient};
use stampede_testkit::{as_operator, as_order_service, eventually};
use std::{
    env,
    io::Write,
    ops::Range,
    time::{Duration, Instant},
};
use tonic::{Code, Response, Status, transport::Channel};

/// Time between two lines that say how far it is.
const SHOWN_EVERY: Duration = Duration::from_secs(5);
/// A run ends early once so many histories have failed.
const ENOUGH_FAULTS: usize = 3;

/// The seeds that one test plays, and what became of them.
pub struct Runs {
    test: &'static str,
    /// The variable that says how many.
    count_variable: &'static str,
    seeds: Range<u64>,
    done: u64,
    faults: Vec<String>,
    started: Instant,
    shown: Instant,
}

impl Runs {
    /// The seeds of the test of this name: from `STAMPEDE_TEST_SEED` on, as many as the variable says.
    pub fn of(test: &'static str, count_variable: &'static str, default_count: u64) -> Self {
        let first = setting("STAMPEDE_TEST_SEED", 1);
        let seeds = first..first + setting(count_variable, default_count);
        let now = Instant::now();
        Self { test, count_variable, seeds, done: 0, faults: Vec::new(), started: now, shown: now }
    }

    pub fn seeds(&self) -> Range<u64> {
        self.seeds.clone()
    }

    /// Notes how the history of a seed ended. A fault is shown at once, with the way to play it again.
    pub fn note(&mut self, seed: u64, outcome: Result<(), String>) {
        self.done += 1;
        if let Err(fault) = outcome {
            let Self { test, count_variable, .. } = self;
            let again = format!("STAMPEDE_TEST_SEED={seed} {count_variable}=1 cargo xtask test -p inventory {test}");
            let fault = format!("seed {seed}: {fault}\n  play it again: {again}");
            say(&fault);
            self.faults.push(fault);
        }
        if self.shown.elapsed() >= SHOWN_EVERY {
            self.shown = Instant::now();
            let (count, took) = (self.seeds.end - self.seeds.start, self.started.elapsed().as_secs());
            say(&format!(
                "{}: {} of {count} histories in {took} s, {} failed",
                self.test,
                self.done,
                self.faults.len()
            ));
        }
    }

    /// Whether so many have failed that more say nothing new.
    pub fn is_enough(&self) -> bool {
        self.faults.len() >= ENOUGH_FAULTS
    }

    /// Fails if a history has failed.
    pub fn end(self) {
        let Self { test, done, faults, started, .. } = self;
        println!("{test}: {done} histories in {} s", started.elapsed().as_secs());
        assert!(faults.is_empty(), "{} of {done} histories:\n{}", faults.len(), faults.join("\n\n"));
    }
}

/// Past the harness, which keeps what a test prints until it has ended.
pub fn say(line: &str) {
    // Whoever does not listen misses nothing but this.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Asks again while the replica has too much to do, or when its connection grew old under the call, as a caller does.
async fn answered<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let answer = eventually("it is not too busy", || {
        let called = call();
        async {
            match called.await {
                Err(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => None,
                answer => Some(answer.expect("it is answered").into_inner()),
            }
        }
    });
    answer.await
}

/// Reserves, and asks again as [`answered`] does.
pub async fn reserve_once_there_is_room(
    api: &InventoryServiceClient<Channel>,
    request: proto::ReserveRequest,
) -> proto::ReserveResponse {
    answered(|| {
        let (mut api, request) = (api.clone(), as_order_service(request.clone()));
        async move { api.reserve(request).await }
    })
    .await
}

/// Stages the stock of an event, and asks again as [`answered`] does.
pub async fn stage_once_there_is_room(api: &InventoryServiceClient<Channel>, request: proto::StageStockRequest) {
    answered(|| {
        let (mut api, request) = (api.clone(), as_operator(request.clone()));
        async move { api.stage_stock(request).await }
    })
    .await;
}

/// Releases, and asks again as [`answered`] does. Returns how many were released.
pub async fn release_once_there_is_room(api: &InventoryServiceClient<Channel>, request: proto::ReleaseRequest) -> i32 {
    let answer = answered(|| {
        let (mut api, request) = (api.clone(), as_order_service(request.clone()));
        async move { api.release(request).await }
    });
    answer.await.released
}

/// Reconciles an event, and asks again as [`answered`] does.
pub async fn reconcile_once_there_is_room(
    api: &InventoryServiceClient<Channel>,
    request: proto::ReconcileRequest,
) -> Vec<proto::Drift> {
    let answer = answered(|| {
        let (mut api, request) = (api.clone(), as_operator(request.clone()));
        async move { api.reconcile(request).await }
    });
    answer.await.drifts
}
