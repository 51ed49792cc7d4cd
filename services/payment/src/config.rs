//! Configuration of the process, by flags and environment variables only.

use crate::provider::BreakerPolicy;
use clap::Parser;
use http::Uri;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_service::{ProviderTimeoutArgs, ServiceArgs};
use std::{num::NonZeroUsize, time::Duration};

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  STAMPEDE_WEBHOOK_SECRET=... stampede serve payment \\
    --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_payment \\
    --kafka-brokers 127.0.0.1:9092 --provider-url http://127.0.0.1:7190";

/// The payment service: charges and refunds through a payment provider, exactly once.
///
/// It needs its MySQL schema (made by `stampede prepare`), Kafka, and a payment provider.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// The configuration that every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The payment provider: http://host:port.
    #[arg(long, env = "STAMPEDE_PROVIDER_URL")]
    pub provider_url: Uri,

    /// How long a request to the provider may take.
    #[command(flatten)]
    pub provider: ProviderTimeoutArgs,

    /// Failures of the provider in a row after which the circuit breaker opens: requests are held back, but for a
    /// probe.
    #[arg(long, env = "STAMPEDE_PAYMENT_BREAKER_FAILURES", default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub breaker_failures: u32,

    /// Milliseconds for which the breaker stays open at first; twice as long after each failed probe, up to ten
    /// seconds.
    #[arg(long, env = "STAMPEDE_PAYMENT_BREAKER_PAUSE_MS", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub breaker_pause_ms: u64,

    /// How long the provider keeps the idempotency key of a charge or a refund, in milliseconds. A charge or refund
    /// that has not ended nine tenths of this after its request is never sent again: it is parked, for an operator.
    #[arg(long, env = "STAMPEDE_PAYMENT_PROVIDER_KEY_LIFE_MS", default_value_t = 86_400_000, value_parser = clap::value_parser!(u64).range(1_000..=2_592_000_000))]
    pub provider_key_life_ms: u64,

    /// Poll interval of the provider's list of refunds, for those that were made by hand, in milliseconds.
    #[arg(long, env = "STAMPEDE_PAYMENT_REFUND_SWEEP_INTERVAL_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub refund_sweep_interval_ms: u64,

    /// Milliseconds after the end of an order until a capture for it that is not refunded is published again; six times
    /// as long each further time, four times in all.
    #[arg(long, env = "STAMPEDE_PAYMENT_ENDED_ORDER_AGE_MS", default_value_t = 600_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub ended_order_age_ms: u64,

    /// Secret that the provider signs its notices with.
    #[arg(long, env = "STAMPEDE_WEBHOOK_SECRET", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub webhook_secret: String,

    /// Another secret that notices may be signed with, during a rotation.
    #[arg(long, env = "STAMPEDE_WEBHOOK_SECRET_OTHER", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub webhook_secret_other: Option<String>,

    /// Most charges in flight at the provider at a time.
    #[arg(long, env = "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", default_value = "256")]
    pub max_charges_in_flight: NonZeroUsize,

    /// Most look-ups of charges of unknown outcome in flight at a time. It bounds how long the charges of a killed
    /// process wait.
    #[arg(long, env = "STAMPEDE_PAYMENT_MAX_LOOKUPS_IN_FLIGHT", default_value = "256")]
    pub max_lookups_in_flight: NonZeroUsize,

    /// Most refunds in flight at the provider at a time.
    #[arg(long, env = "STAMPEDE_PAYMENT_MAX_REFUNDS_IN_FLIGHT", default_value = "256")]
    pub max_refunds_in_flight: NonZeroUsize,
}

impl Config {
    /// Returns the configuration of the circuit breaker.
    pub fn breaker(&self) -> BreakerPolicy {
        BreakerPolicy {
            failures: self.breaker_failures,
            pause: Duration::from_millis(self.breaker_pause_ms),
            probe_timeout: self.provider.provider_timeout() * 2,
        }
    }

    /// Returns how long after its request a charge or a refund may be sent again. The rest of the life of its key is a
    /// margin for clock skew and for requests that are delayed.
    pub const fn resend_for(&self) -> Duration {
        Duration::from_millis(self.provider_key_life_ms / 10 * 9)
    }

    /// Returns how long after the end of an order its capture is published again.
    pub const fn ended_order_age(&self) -> Duration {
        Duration::from_millis(self.ended_order_age_ms)
    }

    /// Returns the interval of the sweep of ended orders: short, so that nothing is published much later than it is
    /// due.
    pub fn ended_order_interval(&self) -> Duration {
        (self.ended_order_age() / 10).min(Duration::from_secs(10))
    }

    /// Returns the interval of the sweep of refunds that were made by hand.
    pub const fn refund_sweep_interval(&self) -> Duration {
        Duration::from_millis(self.refund_sweep_interval_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.service.common
    }
}
