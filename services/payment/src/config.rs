//! What the process is told by its flags and its environment.

use http::Uri;
use stampede_chassis::{CommonConfig, HasCommon};
use std::{num::NonZeroUsize, time::Duration};

/// What is left of a lease when the provider has taken all its time.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  STAMPEDE_WEBHOOK_SECRET=... stampede serve payment \\
    --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_payment \\
    --kafka-brokers 127.0.0.1:9092 --provider-url http://127.0.0.1:7190";

/// The payment service: charges and refunds through a payment provider, exactly once.
#[derive(clap::Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// What every process is told.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Schema of the service: mysql://user:password@host:port/schema.
    #[arg(long, env = "STAMPEDE_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Kafka brokers, host:port, comma separated.
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// Topics are named after it: <prefix>.payment.
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// The payment provider: http://host:port.
    #[arg(long, env = "STAMPEDE_PROVIDER_URL")]
    pub provider_url: Uri,

    /// How long one request to the provider may take, in milliseconds. After that the outcome is unknown, and is
    /// looked up.
    #[arg(long, env = "STAMPEDE_PROVIDER_TIMEOUT_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub provider_timeout_ms: u64,

    /// Secret that the provider signs its notices with.
    #[arg(long, env = "STAMPEDE_WEBHOOK_SECRET", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub webhook_secret: String,

    /// Most charges that the provider is asked for at a time.
    #[arg(long, env = "STAMPEDE_MAX_CHARGES_IN_FLIGHT", default_value = "256")]
    pub max_charges_in_flight: NonZeroUsize,

    /// Most charges of unknown outcome that are looked up at a time.
    #[arg(long, env = "STAMPEDE_MAX_LOOKUPS_IN_FLIGHT", default_value = "32")]
    pub max_lookups_in_flight: NonZeroUsize,

    /// Most refunds that are sent at a time.
    #[arg(long, env = "STAMPEDE_MAX_REFUNDS_IN_FLIGHT", default_value = "32")]
    pub max_refunds_in_flight: NonZeroUsize,
}

impl Config {
    /// How long one request to the provider may take.
    pub fn provider_timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms)
    }

    /// How long a claim holds: a look-up and a charge, and time to write down what became of them.
    pub fn lease(&self) -> Duration {
        self.provider_timeout() * 2 + LEASE_MARGIN
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}
