//! The meter of the process, scraped by Prometheus, and the metrics of every process.

use anyhow::Context;
use opentelemetry::{KeyValue, global, metrics::Histogram};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};

/// Bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Returns a histogram of durations, from the present global meter.
pub fn duration_histogram(name: &'static str, description: &'static str) -> Histogram<f64> {
    global::meter("stampede")
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(SECONDS.to_vec())
        .build()
}

/// Exports everything measured through [`opentelemetry::global`] to the default Prometheus registry.
pub(crate) fn install(service: &'static str, resource: Resource) -> anyhow::Result<SdkMeterProvider> {
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(prometheus::default_registry().clone())
        .without_target_info()
        .scope_info_enabled(false)
        .build()
        .context("cannot start metrics")?;
    let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
    global::set_meter_provider(provider.clone());
    observe_process(service);
    Ok(provider)
}

fn observe_process(service: &'static str) {
    let meter = global::meter("stampede");
    let build = [KeyValue::new("service", service), KeyValue::new("version", env!("CARGO_PKG_VERSION"))];
    meter
        .u64_observable_gauge("stampede_build_info")
        .with_description("Always 1; the labels say what runs.")
        .with_callback(move |gauge| gauge.observe(1, &build))
        .build();
    meter
        .u64_observable_gauge("process_resident_memory")
        .with_description("Memory of the process that is in RAM.")
        .with_unit("By")
        .with_callback(|gauge| {
            if let Some(bytes) = resident_bytes() {
                gauge.observe(bytes, &[]);
            }
        })
        .build();
}

/// Returns `None` without `/proc`.
fn resident_bytes() -> Option<u64> {
    parse_resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_in_bytes() {
        let status = "Name:\torder\nVmPeak:\t  99 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(parse_resident(status), Some(2048 * 1024));
        assert_eq!(parse_resident("Name:\torder\n"), None);
    }
}
