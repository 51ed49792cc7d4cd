//! Counts open connections, and those that a limit closed.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, UpDownCounter},
};

/// Connections that are open, by listener.
#[derive(Clone)]
pub(super) struct Open {
    gauge: UpDownCounter<i64>,
    labels: [KeyValue; 1],
}

/// Counts an open connection for as long as it is held.
pub(super) struct Counted(Open);

impl Open {
    pub(super) fn new(listener: &'static str) -> Open {
        let gauge = global::meter("stampede")
            .i64_up_down_counter("http.server.open_connections")
            .with_description("Connections that are open.")
            .build();
        Open { gauge, labels: [KeyValue::new("listener", listener)] }
    }

    pub(super) fn count(&self) -> Counted {
        self.gauge.add(1, &self.labels);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.gauge.add(-1, &self.0.labels);
    }
}

/// Counts connections, and streams of HTTP/2, that a limit ended, by its name.
#[derive(Clone)]
pub(super) struct Cuts {
    counter: Counter<u64>,
    listener: &'static str,
}

impl Cuts {
    pub(super) fn new(listener: &'static str) -> Cuts {
        let counter = global::meter("stampede")
            .u64_counter("http.server.cut_connections")
            .with_description("Connections and streams that were ended by a bound.")
            .build();
        Cuts { counter, listener }
    }

    pub(super) fn count(&self, bound: &'static str) {
        self.counter.add(1, &[KeyValue::new("listener", self.listener), KeyValue::new("bound", bound)]);
    }
}
