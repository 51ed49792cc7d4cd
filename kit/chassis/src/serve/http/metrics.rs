//! Measures open connections, those that a limit closed, and answers that wait for their reader.

use super::{connections::Connections, life::Phase};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, UpDownCounter},
};
use std::sync::Weak;

/// Observes the open connections of a listener by what they do, for as long as it lives. They are asked at each scrape,
/// and no request counts anything for it.
pub(super) fn observe_open(listener: &'static str, connections: Weak<Connections>) {
    global::meter("stampede")
        .u64_observable_gauge("http.server.open_connections")
        .with_description("Connections that are open, by what they do.")
        .with_callback(move |gauge| {
            let Some(connections) = connections.upgrade() else { return };
            for (phase, count) in Phase::ALL.into_iter().zip(connections.by_phase()) {
                gauge.observe(count, &[KeyValue::new("listener", listener), KeyValue::new("state", phase.name())]);
            }
        })
        .build();
}

/// The limits of a port that speaks HTTP/1 and HTTP/2.
const LIMITS_OF_HTTP: &[&str] =
    &["address", "age", "flood", "full", "head", "head_size", "idle", "leaving", "ping", "stalled", "vanished"];
/// Those of a port for gRPC. The others are enforced by tonic, which does not report them.
const LIMITS_OF_GRPC: &[&str] = &["full", "head", "leaving", "stalled", "vanished"];

/// The counters of a listener: connections, and streams of HTTP/2, that a limit ended, by its name; and answers that
/// wait for their reader.
#[derive(Clone)]
pub(super) struct Metrics {
    cuts: Counter<u64>,
    unread: UpDownCounter<i64>,
    listener: &'static str,
    /// All limits that may be counted.
    limits: &'static [&'static str],
}

/// Counts an answer as unread for as long as it is held.
pub(super) struct Unread(Metrics);

impl Metrics {
    /// Counts for a port that speaks HTTP/1 and HTTP/2.
    pub(super) fn of_http(listener: &'static str) -> Metrics {
        Metrics::new(listener, LIMITS_OF_HTTP)
    }

    /// Counts for a port for gRPC.
    pub(super) fn of_grpc(listener: &'static str) -> Metrics {
        Metrics::new(listener, LIMITS_OF_GRPC)
    }

    fn new(listener: &'static str, limits: &'static [&'static str]) -> Metrics {
        let meter = global::meter("stampede");
        let cuts = meter
            .u64_counter("http.server.cut_connections")
            .with_description("Connections and streams that were ended by a bound.")
            .build();
        let unread = meter
            .i64_up_down_counter("http.server.unread_answers")
            .with_description("Streams of HTTP/2, and sockets, that wait for their reader.")
            .build();
        let metrics = Metrics { cuts, unread, listener, limits };
        // A series that begins with its first count hides that count from queries of increases.
        for bound in limits {
            metrics.add_cuts(0, bound);
        }
        metrics
    }

    /// Counts a connection or stream that this limit ended.
    pub(super) fn count_cut(&self, bound: &'static str) {
        debug_assert!(self.limits.contains(&bound), "{bound} is no limit of this port");
        self.add_cuts(1, bound);
    }

    fn add_cuts(&self, count: u64, bound: &'static str) {
        self.cuts.add(count, &[KeyValue::new("listener", self.listener), KeyValue::new("bound", bound)]);
    }

    /// Counts an answer that waits for its reader.
    pub(super) fn wait_for_reader(&self) -> Unread {
        self.add_unread(1);
        Unread(self.clone())
    }

    fn add_unread(&self, change: i64) {
        self.unread.add(change, &[KeyValue::new("listener", self.listener)]);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.add_unread(-1);
    }
}
