//! What the gateways of this process have counted, all together.

use crate::front::Front;
use opentelemetry::global;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use std::sync::LazyLock;

/// Requests that a bound on what clients hold refused.
pub const REFUSED: &str = "stampede_gateway_refused_total";
/// Watchers that were given up.
pub const SLOW_READERS: &str = "stampede_gateway_slow_readers_total";
/// Public reads without a token, by whether another's call answered them.
pub const SHARED_READS: &str = "stampede_gateway_shared_reads_total";
/// Acts that a limit refused.
pub const THROTTLED: &str = "stampede_gateway_throttled_total";
/// Acts that were let through unchecked.
pub const UNASKED: &str = "stampede_gateway_limits_unasked_total";

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
    let reader = exporter.without_target_info().scope_info_enabled(false).build().unwrap();
    global::set_meter_provider(SdkMeterProvider::builder().with_reader(reader).build());
    registry
});

/// Has the gateways that are built from now on count.
pub fn measure() {
    LazyLock::force(&REGISTRY);
}

/// What a counter had counted under some labels when this was made.
pub struct Count {
    counter: &'static str,
    labels: Vec<String>,
    before: u64,
}

impl Count {
    pub fn of(counter: &'static str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let mut count = Self { counter, labels, before: 0 };
        count.before = count.now();
        count
    }

    /// Checks that at least so many were counted since; other tests may have added to them.
    pub fn has_grown_by(&self, least: usize) {
        let grown = self.now() - self.before;
        assert!(grown >= least as u64, "{} {:?} has grown by {grown}, not by {least}", self.counter, self.labels);
    }

    fn now(&self) -> u64 {
        self.series().iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Returns the series with these labels, as they are exported.
    fn series(&self) -> Vec<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&REGISTRY.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let is_one = |line: &&str| line.starts_with(self.counter) && self.labels.iter().all(|one| line.contains(one));
        text.lines().filter(is_one).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn each_refusal_has_its_series_before_the_first_one() {
    let _front = Front::start(&[]).await;
    let has_series = |counter, labels: [(&str, &str); 2]| {
        assert_eq!(Count::of(counter, &labels).series().len(), 1, "{counter} {labels:?}");
    };
    for held in ["requests", "body_bytes", "answer_bytes", "streams", "subjects"] {
        for by in ["all", "address", "user"] {
            has_series(REFUSED, [("held", held), ("by", by)]);
        }
    }
    for act in ["login", "refresh", "claim", "order", "payment", "cancel"] {
        has_series(THROTTLED, [("act", act), ("by", "address")]);
    }
    has_series(THROTTLED, [("act", "payment"), ("by", "order")]);
}
