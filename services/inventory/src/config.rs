//! Configuration of the process, by flags and environment variables only.

use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_service::{OrderWriteLimitArgs, RedisArgs, ServiceArgs, WatchArgs};
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve inventory --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_inventory \\
    --kafka-brokers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/0 \\
    --order-urls http://127.0.0.1:7104";

/// The inventory service: takes units for orders, and keeps the ledger of what is taken.
///
/// It needs its MySQL schema (made by `stampede prepare`), Redis, Kafka, and the order service.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
#[command(mut_arg("watch_interval_ms", |arg| arg.env("STAMPEDE_INVENTORY_WATCH_INTERVAL_MS")))]
pub struct Config {
    /// The flags that every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The Redis of the stock.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// How long an order may take to be written.
    #[command(flatten)]
    pub write_limit: OrderWriteLimitArgs,

    /// Replicas of the order service, comma separated: http://host:port, or dns:///host:port for all that DNS has.
    #[arg(long, env = "STAMPEDE_ORDER_URLS", value_delimiter = ',', required = true, value_name = "URLS")]
    pub order_urls: Vec<String>,

    /// Milliseconds between two sweeps, for orders that were never written and for stale holds.
    #[arg(long, env = "STAMPEDE_INVENTORY_SWEEP_INTERVAL_MS", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub sweep_interval_ms: u64,

    /// Milliseconds after which a hold is dropped that the ledger does not have: whoever was to commit it is gone.
    #[arg(long, env = "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", default_value_t = 5_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub stale_hold_age_ms: u64,

    /// Milliseconds after which the units of an order go back that was never written. At least one and a half times
    /// --order-write-limit-ms: until then the order may still be written.
    #[arg(long, env = "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", default_value_t = 15_000, value_name = "MS")]
    pub unwritten_order_age_ms: u64,

    /// Milliseconds for which an order must have ended without giving its units back until they are given back without
    /// its message, which may have been lost or discarded.
    #[arg(long, env = "STAMPEDE_INVENTORY_ENDED_ORDER_AGE_MS", default_value_t = 300_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub ended_order_age_ms: u64,

    /// Milliseconds between two comparisons of Redis with the ledger. What is lost in Redis is back within two of
    /// these.
    #[arg(long, env = "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS", default_value_t = 2_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub reconcile_interval_ms: u64,

    /// How long before its opening an event is first checked to be staged, in milliseconds. It is checked again when it
    /// opens. What is missing is counted and staged.
    #[arg(long, env = "STAMPEDE_INVENTORY_STAGING_LEAD_MS", default_value_t = 60_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
    pub staging_lead_ms: u64,

    /// How often watched stock is read.
    #[command(flatten)]
    pub watch: WatchArgs,
}

impl Config {
    pub const fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    /// Age from which on a hold counts as stale.
    pub const fn stale_hold_age(&self) -> Duration {
        Duration::from_millis(self.stale_hold_age_ms)
    }

    /// Age from which on a reservation without a written order is given back. Fails if its order may still be written
    /// at that age.
    pub fn unwritten_order_age(&self) -> anyhow::Result<Duration> {
        self.write_limit.unwritten_age("--unwritten-order-age-ms", self.unwritten_order_age_ms)
    }

    /// Time since its end after which the units of an order are given back without its message.
    pub const fn ended_order_age(&self) -> Duration {
        Duration::from_millis(self.ended_order_age_ms)
    }

    /// Time between two comparisons of Redis with the ledger.
    pub const fn reconcile_interval(&self) -> Duration {
        Duration::from_millis(self.reconcile_interval_ms)
    }

    /// Time before its opening at which an event is first checked to be staged.
    pub const fn staging_lead(&self) -> Duration {
        Duration::from_millis(self.staging_lead_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.service.common
    }
}
