//! What the process is told by its flags and its environment.

use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_vocab::limits::{DEFAULT_ORDER_WRITE_LIMIT_MS, least_unwritten_hold_age};
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve coupon --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_coupon \\
    --kafka-brokers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/0 \\
    --order-urls http://127.0.0.1:7104";

/// The coupon service: issues coupons to the first who claim them.
///
/// It needs its MySQL schema (made by `stampede prepare`), Redis, Kafka, and the order service.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// What every process is told.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Schema of this service, such as mysql://user:password@host:3306/stampede_coupon.
    #[arg(long, env = "STAMPEDE_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Most connections to the database at a time.
    #[arg(long, env = "STAMPEDE_DATABASE_MAX_CONNECTIONS", default_value_t = 16)]
    pub database_max_connections: u32,

    /// Kafka brokers, comma separated, such as host:9092.
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// What the names of the topics start with: "stampede" gives "stampede.coupon".
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// Redis in which claims are ranked: redis://host:port.
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,

    /// Every Redis key starts with it.
    #[arg(long, env = "STAMPEDE_REDIS_KEY_PREFIX", default_value = "")]
    pub redis_key_prefix: String,

    /// Replicas of the order service, comma separated, such as http://host:7104.
    #[arg(long, env = "STAMPEDE_ORDER_URLS", value_delimiter = ',', required = true)]
    pub order_urls: Vec<String>,

    /// Milliseconds after which a claim that was ranked and not stored is finished by the sweep.
    #[arg(long, env = "STAMPEDE_UNFINISHED_CLAIM_AGE_MS", default_value_t = 2_000)]
    pub unfinished_claim_age_ms: u64,

    /// Milliseconds after which the order service is asked about the order that a coupon is held for. At least one and a
    /// half times --order-write-limit-ms, or a coupon would be returned while its order is being written.
    #[arg(long, env = "STAMPEDE_ORPHAN_HOLD_AGE_MS", default_value_t = 15_000)]
    pub orphan_hold_age_ms: u64,

    /// Milliseconds that the order service may take to write an order, as it is told there.
    #[arg(long, env = "STAMPEDE_ORDER_WRITE_LIMIT_MS", default_value_t = DEFAULT_ORDER_WRITE_LIMIT_MS)]
    pub order_write_limit_ms: u64,
}

impl Config {
    /// Age from which a claim counts as unfinished.
    pub const fn unfinished_claim_age(&self) -> Duration {
        Duration::from_millis(self.unfinished_claim_age_ms)
    }

    /// Age from which a hold may be an orphan. Fails if its order may still be written then.
    pub fn orphan_hold_age(&self) -> anyhow::Result<Duration> {
        let age = Duration::from_millis(self.orphan_hold_age_ms);
        let least = least_unwritten_hold_age(Duration::from_millis(self.order_write_limit_ms));
        anyhow::ensure!(
            age >= least,
            "--orphan-hold-age-ms is {}, but must be at least {}, one and a half times --order-write-limit-ms: \
             a younger hold may belong to an order that is being written",
            age.as_millis(),
            least.as_millis()
        );
        Ok(age)
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

    fn orphan_hold_age(settings: &[&str]) -> anyhow::Result<Duration> {
        let needed = ["serve", "--database-url=d", "--kafka-brokers=k", "--redis-url=r", "--order-urls=o"];
        Config::try_parse_from(needed.iter().chain(settings))?.orphan_hold_age()
    }

    #[test]
    fn a_coupon_stays_held_as_long_as_its_order_may_be_written() {
        assert_eq!(orphan_hold_age(&[]).unwrap(), Duration::from_secs(15));
        let error = orphan_hold_age(&["--orphan-hold-age-ms=11999"]).unwrap_err().to_string();
        assert!(error.contains("at least 12000"), "{error}");
        assert!(orphan_hold_age(&["--orphan-hold-age-ms=300", "--order-write-limit-ms=200"]).is_ok());
    }
}
