//! How the process is configured: flags and environment, nothing else.

use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_vocab::limits::DEFAULT_ORDER_WRITE_LIMIT_MS;
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve order --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_order \\
    --kafka-brokers 127.0.0.1:9092 --inventory-urls http://127.0.0.1:7103 \\
    --coupon-urls http://127.0.0.1:7102 --pay-window-ms 600000";

/// The order service: takes orders and leads each to an end.
///
/// It needs its MySQL schema (made by `stampede prepare`), Kafka, and the inventory and coupon services.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// What every process is told.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Schema of this service, such as mysql://user:password@host:3306/stampede_order.
    #[arg(long, env = "STAMPEDE_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Most connections to the database at a time.
    #[arg(long, env = "STAMPEDE_DATABASE_MAX_CONNECTIONS", default_value_t = 16)]
    pub database_max_connections: u32,

    /// Kafka brokers, comma separated, such as host:9092.
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// What the names of the topics start with: "stampede" gives "stampede.order".
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// Replicas of the inventory service, comma separated, such as http://host:7103.
    #[arg(long, env = "STAMPEDE_INVENTORY_URLS", value_delimiter = ',', required = true)]
    pub inventory_urls: Vec<String>,

    /// Replicas of the coupon service, comma separated, such as http://host:7102.
    #[arg(long, env = "STAMPEDE_COUPON_URLS", value_delimiter = ',', required = true)]
    pub coupon_urls: Vec<String>,

    /// Milliseconds within which an order is written after it was asked for, or refused. The inventory and coupon
    /// services must be told the same: later they give back what they hold for it.
    #[arg(long, env = "STAMPEDE_ORDER_WRITE_LIMIT_MS", default_value_t = DEFAULT_ORDER_WRITE_LIMIT_MS, value_parser = clap::value_parser!(u64).range(1..))]
    pub order_write_limit_ms: u64,

    /// Milliseconds that a buyer has to pay, from when the ledger has committed the units.
    #[arg(long, env = "STAMPEDE_PAY_WINDOW_MS", default_value_t = 600_000)]
    pub pay_window_ms: u64,

    /// Milliseconds after the deadline in which a payment under way may still succeed.
    #[arg(long, env = "STAMPEDE_PAYING_GRACE_MS", default_value_t = 5_000)]
    pub paying_grace_ms: u64,

    /// Milliseconds between two looks for orders whose time to be paid is over.
    #[arg(long, env = "STAMPEDE_SWEEP_INTERVAL_MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_interval_ms: u64,

    /// Milliseconds between two looks at the orders that somebody watches.
    #[arg(long, env = "STAMPEDE_WATCH_INTERVAL_MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub watch_interval_ms: u64,
}

impl Config {
    /// Time in which an order is written or refused.
    pub const fn order_write_limit(&self) -> Duration {
        Duration::from_millis(self.order_write_limit_ms)
    }

    /// Time between two deadline sweeps.
    pub const fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    /// Time between two looks at watched orders.
    pub const fn watch_interval(&self) -> Duration {
        Duration::from_millis(self.watch_interval_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}
