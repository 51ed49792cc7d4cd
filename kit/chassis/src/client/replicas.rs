//! The ready replicas of a service, and the choice of one for each call.

use super::call_error::CallError;
use http::{Request, Response};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    transport::{self, Channel, Endpoint},
};
use tower::ServiceExt;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Without keep-alive a connection stays dead after a partition.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Windows that let one connection carry many small messages without waiting for updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Windows of the connection for streams. It is separate, so that a stream that is not read blocks no call, and 256
/// such streams are needed to block the others. Callers must read streams as their messages arrive.
const WATCH_STREAM_WINDOW_BYTES: u32 = 64 << 10;
const WATCH_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Returns the endpoint of a replica at this URL. Fails if the URL is malformed.
pub(super) fn endpoint(url: &str) -> Result<Endpoint, transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// The ready replicas of one service. Clones share them.
#[derive(Clone)]
pub(super) struct Replicas {
    ready: watch::Sender<Vec<Arc<Replica>>>,
    /// Round-robin counter, which breaks ties between equally busy replicas.
    round_robin: Arc<AtomicUsize>,
    /// Notified when a call could not connect, so that the next probe is made at once.
    pub(super) probe_now: Arc<Notify>,
    /// Notified when a call found no ready replica, so that the next lookup is made early.
    pub(super) look_up_now: Arc<Notify>,
}

impl Replicas {
    pub(super) fn new() -> Replicas {
        Replicas {
            ready: watch::Sender::new(Vec::new()),
            round_robin: Arc::default(),
            probe_now: Arc::default(),
            look_up_now: Arc::default(),
        }
    }

    /// Returns the number of ready replicas.
    pub(super) fn count(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Adds a ready replica.
    pub(super) fn insert(&self, replica: &Arc<Replica>) {
        self.ready.send_modify(|ready| ready.push(replica.clone()));
    }

    /// Removes a replica. It finishes the calls that it has.
    pub(super) fn remove(&self, replica: &Arc<Replica>) {
        self.ready.send_modify(|ready| ready.retain(|one| !Arc::ptr_eq(one, replica)));
    }

    /// Removes a replica if another one is ready, and returns whether it did. It is one step, so that of two that are
    /// removed at the same time one is left.
    pub(super) fn remove_unless_last(&self, replica: &Arc<Replica>) -> bool {
        self.ready.send_if_modified(|ready| {
            let has_others = ready.len() > 1;
            if has_others {
                ready.retain(|one| !Arc::ptr_eq(one, replica));
            }
            has_others
        })
    }

    /// Waits until a replica is ready, and returns the one with the fewest calls under way.
    pub(super) async fn next(&self) -> Arc<Replica> {
        match self.least_busy() {
            Some(replica) => replica,
            None => self.first_ready().await,
        }
    }

    async fn first_ready(&self) -> Arc<Replica> {
        let mut changes = self.ready.subscribe();
        loop {
            if let Some(replica) = self.least_busy() {
                return replica;
            }
            self.look_up_now.notify_waiters();
            // Never fails: the sender is in this value.
            let _ = changes.changed().await;
        }
    }

    fn least_busy(&self) -> Option<Arc<Replica>> {
        let ready = self.ready.borrow();
        let first = self.round_robin.fetch_add(1, Ordering::Relaxed) % ready.len().max(1);
        let (before, from) = ready.split_at(first);
        from.iter().chain(before).min_by_key(|replica| replica.under_way.load(Ordering::Relaxed)).cloned()
    }
}

/// Calls and streams have separate connections to a replica, and so separate flow-control windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Calls with one answer.
    Calls,
    /// Streams of answers.
    Streams,
}

/// One replica. The connection of each lane is made for its first call.
pub(super) struct Replica {
    calls: Channel,
    streams: Channel,
    /// Calls without an answer so far.
    under_way: AtomicUsize,
    silent: CancellationToken,
}

impl Replica {
    /// Returns the replica at this endpoint. Needs a tokio runtime.
    pub(super) fn at(endpoint: &Endpoint) -> Arc<Replica> {
        let (under_way, silent) = (AtomicUsize::new(0), CancellationToken::new());
        let watching = endpoint
            .clone()
            .initial_stream_window_size(WATCH_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(WATCH_CONNECTION_WINDOW_BYTES);
        let (calls, streams) = (endpoint.connect_lazy(), watching.connect_lazy());
        Arc::new(Replica { calls, streams, under_way, silent })
    }

    /// Makes a call. Fails at once when the replica stops answering probes.
    pub(super) async fn call(&self, lane: Lane, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let _under_way = UnderWay::begin(&self.under_way);
        let channel = match lane {
            Lane::Calls => self.calls.clone(),
            Lane::Streams => self.streams.clone(),
        };
        match self.silent.run_until_cancelled(channel.oneshot(request)).await {
            Some(outcome) => outcome.map_err(CallError::Transport),
            None => Err(CallError::Silent),
        }
    }

    /// Fails the calls under way: the replica does not answer any more, and their callers may retry elsewhere.
    pub(super) fn fall_silent(&self) {
        self.silent.cancel();
    }
}

/// Counts a call for as long as this is held.
struct UnderWay<'a>(&'a AtomicUsize);

impl UnderWay<'_> {
    fn begin(under_way: &AtomicUsize) -> UnderWay<'_> {
        under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(under_way)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Arc<Replica> {
        Replica::at(&Endpoint::from_static("http://127.0.0.1:1"))
    }

    #[tokio::test]
    async fn idle_replicas_take_turns_and_a_busy_one_is_passed_over() {
        let (replicas, all) = (Replicas::new(), [replica(), replica()]);
        all.iter().for_each(|replica| replicas.insert(replica));
        let (one, other) = (replicas.next().await, replicas.next().await);
        assert!(!Arc::ptr_eq(&one, &other));
        let _under_way = UnderWay::begin(&one.under_way);
        for _ in 0..4 {
            assert!(Arc::ptr_eq(&replicas.next().await, &other));
        }
        replicas.remove(&other);
        assert!(Arc::ptr_eq(&replicas.next().await, &one), "better a busy one than none");
        assert_eq!(replicas.count(), 1);
    }

    #[tokio::test]
    async fn of_two_that_are_removed_at_the_same_time_one_is_left() {
        const ROUNDS: usize = 100_000;
        let (replicas, all) = (&Replicas::new(), [replica(), replica()]);
        all.iter().for_each(|replica| replicas.insert(replica));
        std::thread::scope(|threads| {
            for replica in &all {
                threads.spawn(move || {
                    for _ in 0..ROUNDS {
                        let was_removed = replicas.remove_unless_last(replica);
                        assert_ne!(replicas.count(), 0, "both are removed");
                        if was_removed {
                            replicas.insert(replica);
                        }
                    }
                });
            }
        });
        assert_eq!(replicas.count(), 2);
    }
}
