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

/// Checks that a counter has counted something under these labels.
pub fn is_counted(counter: &str, labels: &[(&str, &str)]) {
    let series = series(counter, labels);
    assert!(series.iter().any(|line| !line.ends_with(" 0")), "{counter} {labels:?}: {series:?}");
}

/// Returns the series of a counter with these labels, as they are exported.
fn series(counter: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&REGISTRY.gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let has_labels = |line: &str| labels.iter().all(|label| line.contains(label.as_str()));
    text.lines().filter(|line| line.starts_with(counter) && has_labels(line)).map(str::to_owned).collect()
}

#[tokio::test]
async fn each_refusal_has_its_series_before_the_first_one() {
    let _front = Front::start(&[]).await;
    for held in ["requests", "body_bytes", "answer_bytes", "streams", "subjects"] {
        for by in ["all", "address", "user"] {
            assert_eq!(series(REFUSED, &[("held", held), ("by", by)]).len(), 1, "{held} {by}");
        }
    }
    for act in ["login", "refresh", "claim", "order", "payment", "cancel"] {
        assert_eq!(series(THROTTLED, &[("act", act), ("by", "address")]).len(), 1, "{act}");
    }
    assert_eq!(series(THROTTLED, &[("act", "payment"), ("by", "order")]).len(), 1);
}
