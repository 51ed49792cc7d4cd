//! Logs, spans and metrics of the process.
//!
//! Logs go to stderr. Spans always exist, so that trace context is propagated, but are recorded and sent by
//! OpenTelemetry only with a collector. Metrics are in the default Prometheus registry, which the admin port serves.

mod context;
mod metrics;

use self::context::PassedOn;
use crate::{CommonConfig, config::LogFormat};
use anyhow::Context;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use opentelemetry_semantic_conventions::attribute;
use std::{io::IsTerminal, time::Duration};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use context::{adopt_parent, inject, link_stranger, note, passed_on, trace_id};
pub use metrics::duration_histogram;

pub(crate) use metrics::install as install_metrics;

/// Longest wait at exit for a collector that does not answer.
const FLUSH: Duration = Duration::from_secs(2);

type BoxLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The exporters to flush before the process exits.
pub(crate) struct Telemetry {
    /// `None` without a collector.
    tracer: Option<SdkTracerProvider>,
    meter: SdkMeterProvider,
}

impl Telemetry {
    /// Starts logs, spans and metrics. Must be called once, within the runtime: the exporter needs it.
    pub(crate) fn start(service: &'static str, config: &CommonConfig) -> anyhow::Result<Telemetry> {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let resource = Resource::builder()
            .with_service_name(format!("stampede-{service}"))
            .with_attribute(KeyValue::new(attribute::SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
            .build();
        let meter = install_metrics(service, resource.clone())?;
        let collector = config.otlp_endpoint.as_deref();
        let tracer = collector.map(|endpoint| tracer_provider(endpoint, config, resource)).transpose()?;
        let layers = vec![log_layer(config), tracer.as_ref().map_or_else(passing_layer, span_layer)];
        tracing_subscriber::registry().with(layers).try_init().context("cannot start logging")?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(Telemetry { tracer, meter })
    }

    /// Sends buffered spans. Blocks, so it must not be called from async code.
    pub(crate) fn flush(&self) {
        let spans = self.tracer.as_ref().map(|tracer| tracer.shutdown_with_timeout(FLUSH));
        for result in spans.into_iter().chain([self.meter.shutdown_with_timeout(FLUSH)]) {
            if let Err(error) = result {
                tracing::warn!(error.cause = %error, "the last spans or metrics may be lost");
            }
        }
    }
}

fn log_layer(config: &CommonConfig) -> BoxLayer {
    let filter = config.log_filter.clone();
    // A line that cannot be written, as on a full disk, is lost: to report it on the same stderr would panic, in the
    // work that logged it.
    let layer = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match config.log_format {
        LogFormat::Human => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    }
}

fn tracer_provider(endpoint: &str, config: &CommonConfig, resource: Resource) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("--otlp-endpoint {endpoint:?} cannot be used"))?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.otlp_sample_ratio)));
    let builder = SdkTracerProvider::builder().with_resource(resource);
    Ok(builder.with_sampler(sampler).with_batch_exporter(exporter).build())
}

/// Exports spans from INFO up, whatever the log filter is: a quiet log must not break traces.
fn span_layer(provider: &SdkTracerProvider) -> BoxLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("stampede"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(LevelFilter::INFO)
        .boxed()
}

/// Keeps the spans that note their trace, whatever the log filter is.
fn passing_layer() -> BoxLayer {
    let spans = filter_fn(|metadata| *metadata.level() <= LevelFilter::INFO && metadata.is_span());
    // Without the hint TRACE counts as enabled: the libraries then check each of their own lines and spans, hundreds in
    // a call.
    PassedOn.with_filter(spans.with_max_level_hint(LevelFilter::INFO)).boxed()
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(panic.location = at, panic.message = message, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_level_of_spans_is_left_to_the_log_filter() {
        let provider = SdkTracerProvider::builder().build();
        for layer in [passing_layer(), span_layer(&provider)] {
            assert_eq!(Layer::<Registry>::max_level_hint(&layer), Some(LevelFilter::INFO));
        }
    }
}
