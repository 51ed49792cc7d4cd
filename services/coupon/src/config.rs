//! What the process is told by its flags and its environment.

use clap::{Parser, value_parser};
use stampede_chassis::{CommonConfig, HasCommon};
use std::time::Duration;

/// The coupon service: issues coupons to the first who claim them.
///
/// It needs its MySQL schema (made by `stampede prepare`), Redis, Kafka, and the order service.
#[derive(Debug, Clone, Parser)]
#[command(name = "stampede-coupon", version)]
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

    /// Milliseconds after which the order service is asked about the order that a coupon is held for. It must be more
    /// than the 10 s that placing an order may take, or a coupon would be returned while its order is being written.
    #[arg(long, env = "STAMPEDE_ORPHAN_HOLD_AGE_MS", default_value_t = 15_000, value_parser = value_parser!(u64).range(10_001..))]
    pub orphan_hold_age_ms: u64,

    /// Milliseconds to wait at start for the servers.
    #[arg(long, env = "STAMPEDE_WAIT_FOR_SERVERS_MS", default_value_t = 60_000)]
    pub wait_for_servers_ms: u64,
}

impl Config {
    /// Age from which a claim counts as unfinished.
    pub const fn unfinished_claim_age(&self) -> Duration {
        Duration::from_millis(self.unfinished_claim_age_ms)
    }

    /// Age from which a hold may be an orphan.
    pub const fn orphan_hold_age(&self) -> Duration {
        Duration::from_millis(self.orphan_hold_age_ms)
    }

    /// Longest wait for the servers at start.
    pub const fn wait_for_servers(&self) -> Duration {
        Duration::from_millis(self.wait_for_servers_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}
