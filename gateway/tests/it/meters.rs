//! What the gateways of this process have counted, all together.

use opentelemetry::global;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use std::sync::LazyLock;

/// Requests that a bound on what clients hold refused.
pub const REFUSED: &str = "stampede_gateway_refused_total";
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
    let mut text = Vec::new();
    TextEncoder::new().encode(&REGISTRY.gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let has_labels = |line: &str| labels.iter().all(|label| line.contains(label.as_str()));
    let mut series = text.lines().filter(|line| line.starts_with(counter) && has_labels(line));
    assert!(series.any(|line| !line.ends_with(" 0")), "{counter} {labels:?}\n{text}");
}
