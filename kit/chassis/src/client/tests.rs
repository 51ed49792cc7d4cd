//! A mesh over real replicas that come, go and die.

use super::{
    MeshChannel, ReadOnly,
    probe::{Finding, HealthProbe},
    replicas::endpoint,
};
use crate::{
    Deadline, Workers,
    for_tests::{Process, call, once_within},
};
use http::Request;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, body::Body};
use tower::util::MapRequest;

const DRAIN: Duration = Duration::from_secs(5);
/// Longest time of a step that takes a second, on a machine that may be frozen meanwhile. A call to a replica that does
/// not answer takes five seconds.
const UNDER_LOAD: Duration = Duration::from_millis(4_500);
/// Longest time until a replica that is gone within a second is seen to be: a round of calls has to begin after that.
const SEEN_GONE: Duration = Duration::from_secs(2);

/// A replica with a runtime of its own, so that it can be killed with all its connections.
struct Replica {
    runtime: Option<Runtime>,
    url: String,
    workers: Workers,
}

impl Replica {
    fn start(number: i32) -> Replica {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let workers = Workers::new();
        let process = runtime.spawn(Process::start(number, workers.clone(), DRAIN));
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let process = process.await.unwrap();
            sender.send(process.url()).unwrap();
            process.serving.await.unwrap().unwrap();
        });
        Replica { runtime: Some(runtime), url: receiver.recv().unwrap(), workers }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Freezes the replica's one thread, like SIGSTOP: the kernel still accepts connections, and nothing answers.
    /// Dropping the guard resumes it.
    fn freeze(&self) -> std::sync::mpsc::Sender<()> {
        let (guard, thaw) = std::sync::mpsc::channel();
        let (entered, frozen) = std::sync::mpsc::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            entered.send(()).unwrap();
            // The drop of the other end is the signal.
            let _ = thaw.recv();
        });
        frozen.recv().unwrap();
        guard
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn mesh(replicas: &[&Replica]) -> MeshChannel {
    let urls: Vec<String> = replicas.iter().map(|replica| replica.url.clone()).collect();
    MeshChannel::connect(&urls, "test")
}

/// Returns the replicas that answer in so many calls, and the number of calls that fail.
async fn answers(mesh: &MeshChannel, calls: u32) -> (Vec<i32>, u32) {
    let (mut numbers, mut failed) = (Vec::new(), 0);
    for _ in 0..calls {
        match call(mesh.clone(), "/test.Calls/Number").await {
            Ok(number) => numbers.push(number),
            Err(_) => failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    numbers.sort_unstable();
    numbers.dedup();
    (numbers, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_is_gone_within_a_second() {
    let gone_after = async || {
        let (first, mut second) = (Replica::start(1), Replica::start(2));
        let mesh = mesh(&[&first, &second]);
        until_answered_by(&mesh, &[1, 2]).await;
        second.kill();
        let died = Instant::now();
        let (_, failed) = answers(&mesh, 100).await;
        assert!(failed <= 1, "only a call that was under way may fail, {failed} did");
        until_answered_by(&mesh, &[1]).await;
        let took = died.elapsed();
        assert_eq!(answers(&mesh, 100).await, (vec![1], 0));
        took
    };
    once_within(SEEN_GONE, gone_after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_connections_and_answers_nobody_is_gone_within_a_second() {
    let gone_after = async || {
        let (first, second) = (Replica::start(1), Replica::start(2));
        let mesh = mesh(&[&first, &second]);
        until_answered_by(&mesh, &[1, 2]).await;
        let frozen = second.freeze();
        let started = Instant::now();
        until_answered_by(&mesh, &[1]).await;
        let took = started.elapsed();
        assert_eq!(answers(&mesh, 100).await, (vec![1], 0));
        drop(frozen);
        // It is back.
        until_answered_by(&mesh, &[1, 2]).await;
        took
    };
    once_within(SEEN_GONE, gone_after).await;
}

/// Makes ten calls at once that take 600 ms each.
async fn slow_calls(mesh: &MeshChannel) -> Vec<Result<i32, Code>> {
    let calls = (0..10).map(|_| call(mesh.clone(), "/test.Calls/Slow"));
    let answers = futures_util::future::join_all(calls).await;
    answers.into_iter().map(|answer| answer.map_err(|status| status.code())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_replica_that_falls_silent_fail_at_once() {
    let (first, second) = (Replica::start(1), Replica::start(2));
    let mesh = mesh(&[&first, &second]);
    until_answered_by(&mesh, &[1, 2]).await;
    let frozen = second.freeze();
    let started = Instant::now();
    let outcomes = slow_calls(&mesh).await;
    assert!(started.elapsed() < UNDER_LOAD, "a call waited for it: {:?}", started.elapsed());
    let failed: Vec<Code> = outcomes.iter().copied().filter_map(Result::err).collect();
    assert_eq!(failed, [Code::Unavailable; 5], "half of them are the other one's: {outcomes:?}");
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_only_read_are_answered_by_another_replica() {
    let (first, second) = (Replica::start(1), Replica::start(2));
    let mesh = mesh(&[&first, &second]);
    until_answered_by(&mesh, &[1, 2]).await;
    let frozen = second.freeze();
    let calls = (0..10).map(|_| {
        let marked = MapRequest::new(mesh.clone(), |mut request: Request<Body>| {
            request.extensions_mut().insert(ReadOnly);
            request
        });
        call(marked, "/test.Calls/Number")
    });
    let answers = futures_util::future::join_all(calls).await;
    let numbers: Vec<i32> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(numbers, [1; 10], "half of them were made on the other one first");
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_answers_the_calls_that_it_has() {
    let stays = Replica::start(1);
    let leaves = Process::start(2, Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[stays.url.clone(), leaves.url()], "test");
    until_answered_by(&mesh, &[1, 2]).await;
    let calls = tokio::spawn(async move { slow_calls(&mesh).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    leaves.stop.cancel();
    leaves.serving.await.unwrap().unwrap();
    assert_eq!(calls.await.unwrap(), [Ok(0); 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_not_ready_is_not_called() {
    let (first, second) = (Replica::start(1), Replica::start(2));
    let gate = second.workers.gate("redis");
    let mesh = mesh(&[&first, &second]);
    until_answered_by(&mesh, &[1]).await;
    gate.open();
    until_answered_by(&mesh, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_in_order_fails_no_call() {
    let workers = Workers::new();
    let stays = Replica::start(1);
    let leaves = Process::start(2, workers, DRAIN).await;
    let mesh = MeshChannel::connect(&[stays.url.clone(), leaves.url()], "test");
    until_answered_by(&mesh, &[1, 2]).await;
    let calls = tokio::spawn({
        let mesh = mesh.clone();
        async move { answers(&mesh, 500).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    leaves.stop.cancel();
    leaves.serving.await.unwrap().unwrap();
    assert_eq!(calls.await.unwrap().1, 0);
}

#[tokio::test]
async fn without_a_replica_a_call_fails_soon_and_says_which_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for urls in [vec![dead], vec![], vec!["not a url".to_owned()]] {
        let fails_after = async || {
            let mesh = MeshChannel::connect(&urls, "stock");
            let started = Instant::now();
            let error = call(mesh, "/test.Calls/Number").await.unwrap_err();
            assert_eq!((error.code(), error.message()), (Code::Unavailable, "the stock service is not available"));
            started.elapsed()
        };
        // It waits for a replica for a second.
        once_within(Duration::from_millis(1_500), fails_after).await;
    }
}

#[tokio::test]
async fn a_call_waits_for_a_replica_that_is_about_to_be_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = MeshChannel::connect(&[format!("http://{}", listener.local_addr().unwrap())], "test");
    let waiting = tokio::spawn(call(mesh, "/test.Calls/Number"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _process = Process::start_on(listener, 7, Workers::new(), DRAIN).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn the_deadline_of_the_call_being_handled_goes_along() {
    let process = Process::start(1, Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[process.url()], "test");
    let left = call(mesh.clone(), "/test.Calls/MillisLeft").await.unwrap();
    assert!((4_000..=5_000).contains(&left), "the default is 5 s, {left} ms were left");
    let inherited = Deadline::after(Duration::from_millis(800));
    let left = inherited.bound(call(mesh.clone(), "/test.Calls/MillisLeft")).await.unwrap().unwrap();
    assert!((1..=800).contains(&left), "{left} ms were left");
}

#[tokio::test]
async fn a_call_that_gets_no_answer_is_deadline_exceeded() {
    let process = Process::start(1, Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[process.url()], "test");
    call(mesh.clone(), "/test.Calls/Number").await.unwrap();
    let set = Deadline::after(Duration::from_millis(200));
    let call = set.scope(call(mesh, "/test.Calls/Never"));
    assert_eq!(call.await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(set.remaining(), Duration::ZERO);
}

/// The addresses of a name in DNS, set by a test.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<Vec<SocketAddr>>>);

impl Dns {
    fn set(&self, replicas: &[&Replica]) {
        let address = |replica: &&Replica| replica.url.trim_start_matches("http://").parse::<SocketAddr>().unwrap();
        *self.0.lock().unwrap() = replicas.iter().map(address).collect();
    }

    /// Returns a channel to all addresses of the name.
    fn mesh(&self) -> MeshChannel {
        let dns = self.clone();
        MeshChannel::resolving(&["dns:///test:7100".to_owned()], "test", move |name| {
            assert_eq!(name, "test:7100");
            let addresses = dns.0.lock().unwrap().clone();
            async move { Ok(addresses) }
        })
    }

    /// Load-balances one address over all of them, as a Kubernetes Service does: each connection goes to one of the
    /// addresses at that time. Returns the URL, until the guard is dropped.
    async fn behind_one_address(&self) -> (String, AbortOnDropHandle<()>) {
        let (listener, replicas) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), self.0.clone());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            loop {
                let (mut caller, _) = listener.accept().await.unwrap();
                let replicas = replicas.lock().unwrap().clone();
                let replica = replicas[rand::random_range(0..replicas.len())];
                tokio::spawn(async move {
                    let mut replica = TcpStream::connect(replica).await.unwrap();
                    // Either side may close it.
                    let _ = copy_bidirectional(&mut caller, &mut replica).await;
                });
            }
        });
        (url, AbortOnDropHandle::new(accepting))
    }
}

/// Waits up to half a minute until these replicas, and no others, answer a number of calls of which none fails.
async fn until_answered_by(mesh: &MeshChannel, expected: &[i32]) {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let (numbers, failed) = answers(mesh, 50).await;
        if (numbers.as_slice(), failed) == (expected, 0) {
            return;
        }
        assert!(Instant::now() < give_up, "{numbers:?} answered, and {failed} calls failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_added_to_a_name_gets_its_share() {
    let (first, second, dns) = (Replica::start(1), Replica::start(2), Dns::default());
    dns.set(&[&first]);
    let mesh = dns.mesh();
    until_answered_by(&mesh, &[1]).await;
    dns.set(&[&first, &second]);
    until_answered_by(&mesh, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_under_a_probe_says_nothing_of_its_replica() {
    let replica = Replica::start(1);
    let address = replica.url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let _proxy = AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut ends, _) = listener.accept().await.unwrap();
        ends.read_exact(&mut [0; 24]).await.unwrap();
        drop(ends);
        let (mut caller, _) = listener.accept().await.unwrap();
        let mut replica = TcpStream::connect(address).await.unwrap();
        // Either side may close it.
        let _ = copy_bidirectional(&mut caller, &mut replica).await;
    }));
    let mut health = HealthProbe::of(&endpoint(&url).unwrap());
    // On a busy machine it may be silent.
    assert_ne!(health.check().await.0, Finding::Down);
}

/// Callers are not notified: they find it because their connections end.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_added_behind_one_address_is_called_once_connections_are_old() {
    let (first, second, there) = (Replica::start(1), Replica::start(2), Dns::default());
    there.set(&[&first]);
    let (url, _guard) = there.behind_one_address().await;
    let callers = [(); 4].map(|()| MeshChannel::connect(std::slice::from_ref(&url), "test"));
    for caller in &callers {
        until_answered_by(caller, &[1]).await;
    }
    there.set(&[&first, &second]);
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut called = Vec::new();
    while called != [1, 2] {
        assert!(Instant::now() < give_up, "{called:?} are called");
        called.clear();
        for caller in &callers {
            let (numbers, failed) = answers(caller, 20).await;
            assert_eq!(failed, 0, "no call is lost");
            called.extend(numbers);
        }
        called.sort_unstable();
        called.dedup();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_replicas_were_all_replaced_is_looked_up_at_once() {
    let (mut old, new, dns) = (Replica::start(1), Replica::start(2), Dns::default());
    dns.set(&[&old]);
    let mesh = dns.mesh();
    until_answered_by(&mesh, &[1]).await;
    dns.set(&[&new]);
    old.kill();
    let started = Instant::now();
    until_answered_by(&mesh, &[2]).await;
    assert!(started.elapsed() < Duration::from_secs(4), "it waited for its turn: {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_answer_changes_nothing() {
    let (replica, dns) = (Replica::start(1), Dns::default());
    let mesh = dns.mesh();
    assert_eq!(call(mesh.clone(), "/test.Calls/Number").await.unwrap_err().code(), Code::Unavailable);
    dns.set(&[&replica]);
    until_answered_by(&mesh, &[1]).await;
    dns.set(&[]);
    let still = Instant::now() + Duration::from_secs(6);
    while Instant::now() < still {
        assert_eq!(answers(&mesh, 100).await, (vec![1], 0));
    }
}

#[tokio::test]
async fn a_name_is_looked_up_by_the_system() {
    let process = Process::start(3, Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[format!("dns:///localhost:{}", process.address.port())], "test");
    assert_eq!(call(mesh, "/test.Calls/Number").await.unwrap(), 3);
}

#[tokio::test]
async fn probes_end_with_the_last_clone() {
    let process = Process::start(1, Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[process.url()], "test");
    let clone = mesh.clone();
    let probes = std::sync::Arc::downgrade(&mesh.shared.replicas.probe_now);
    call(mesh, "/test.Calls/Number").await.unwrap();
    assert!(probes.upgrade().is_some(), "a clone is left");
    drop(clone);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(probes.upgrade().is_none());
}
