//! Measures open connections, those that a limit closed, and answers that wait for their reader.

use super::{connections::Connections, life::Phase};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, UpDownCounter},
};
use std::sync::Weak;

/// Observes the open connections of a listener by what they do, for as long as it lives. This costs a request nothing.
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

/// Counts connections, and streams of HTTP/2, that a limit ended, by its name; and those whose reader is waited for.
#[derive(Clone)]
pub(super) struct Cuts {
    counter: Counter<u64>,
    unread: UpDownCounter<i64>,
    listener: &'static str,
}

/// Counts an answer as unread for as long as it is held.
pub(super) struct Unread(Cuts);

impl Cuts {
    pub(super) fn new(listener: &'static str) -> Cuts {
        let meter = global::meter("stampede");
        let counter = meter
            .u64_counter("http.server.cut_connections")
            .with_description("Connections and streams that were ended by a bound.")
            .build();
        let unread = meter
            .i64_up_down_counter("http.server.unread_answers")
            .with_description("Streams of HTTP/2, and sockets, that wait for their reader.")
            .build();
        Cuts { counter, unread, listener }
    }

    pub(super) fn count(&self, bound: &'static str) {
        self.counter.add(1, &[KeyValue::new("listener", self.listener), KeyValue::new("bound", bound)]);
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
