//! What the process is told by its flags and its environment.

use crate::usecase::HoldAges;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_vocab::limits::{DEFAULT_ORDER_WRITE_LIMIT_MS, least_unwritten_hold_age};
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve inventory --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_inventory \\
    --kafka-brokers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/0 \\
    --order-urls http://127.0.0.1:7104";

/// The inventory service: holds units for orders, and keeps the ledger of what is taken.
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

    /// Topics are named after it: <prefix>.inventory.
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// Redis for the stock: redis://host:port/0.
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,

    /// Every Redis key starts with it.
    #[arg(long, env = "STAMPEDE_REDIS_KEY_PREFIX", default_value = "")]
    pub redis_key_prefix: String,

    /// Replicas of the order service, which is asked about holds whose order is not in the ledger: http://host:port,
    /// comma separated.
    #[arg(long, env = "STAMPEDE_ORDER_URLS", value_delimiter = ',', required = true)]
    pub order_urls: Vec<String>,

    /// How often the holds are searched for those that nobody needs, in milliseconds.
    #[arg(long, env = "STAMPEDE_SWEEP_INTERVAL_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub sweep_interval_ms: u64,

    /// A hold of less than this age is not looked at, in milliseconds: its order is most likely on its way.
    #[arg(long, env = "STAMPEDE_ORPHAN_HOLD_AGE_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub orphan_hold_age_ms: u64,

    /// A hold whose order was never written goes back at this age, in milliseconds. At least one and a half times
    /// --order-write-limit-ms: until then the order may still be written.
    #[arg(long, env = "STAMPEDE_UNWRITTEN_HOLD_AGE_MS", default_value_t = 15_000)]
    pub unwritten_hold_age_ms: u64,

    /// How long the order service may take to write an order, in milliseconds, as it is told there.
    #[arg(long, env = "STAMPEDE_ORDER_WRITE_LIMIT_MS", default_value_t = DEFAULT_ORDER_WRITE_LIMIT_MS)]
    pub order_write_limit_ms: u64,

    /// How often Redis is compared with the ledger, in milliseconds. What is lost in Redis is back within two of these.
    #[arg(long, env = "STAMPEDE_RECONCILE_INTERVAL_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub reconcile_interval_ms: u64,
}

impl Config {
    /// Time between two searches for orphaned holds.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    /// How old holds must be. Fails if a hold would be given back while its order may still be written.
    pub fn hold_ages(&self) -> anyhow::Result<HoldAges> {
        let unwritten = Duration::from_millis(self.unwritten_hold_age_ms);
        let least = least_unwritten_hold_age(Duration::from_millis(self.order_write_limit_ms));
        anyhow::ensure!(
            unwritten >= least,
            "--unwritten-hold-age-ms is {}, but must be at least {}, one and a half times --order-write-limit-ms: \
             a younger hold may belong to an order that is being written",
            unwritten.as_millis(),
            least.as_millis()
        );
        Ok(HoldAges { looked_at: Duration::from_millis(self.orphan_hold_age_ms), unwritten })
    }

    /// Time between two comparisons of Redis with the ledger.
    pub fn reconcile_interval(&self) -> Duration {
        Duration::from_millis(self.reconcile_interval_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn config(settings: &[&str]) -> Config {
        let needed = ["serve", "--database-url=d", "--kafka-brokers=k", "--redis-url=r", "--order-urls=o"];
        let addresses = ["--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];
        Config::try_parse_from(needed.iter().chain(&addresses).chain(settings)).unwrap()
    }

    #[test]
    fn a_hold_stays_as_long_as_its_order_may_be_written() {
        assert!(config(&[]).hold_ages().is_ok());
        assert!(config(&["--unwritten-hold-age-ms=12000"]).hold_ages().is_ok());
        let error = config(&["--unwritten-hold-age-ms=11999"]).hold_ages().unwrap_err().to_string();
        assert!(error.contains("at least 12000"), "{error}");
        assert!(config(&["--unwritten-hold-age-ms=300", "--order-write-limit-ms=200"]).hold_ages().is_ok());
    }
}
