//! Configuration of the process, by flags and environment variables only.

use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_service::{OrderWriteLimitArgs, RedisArgs, ServiceArgs};
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
    /// The configuration that every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The Redis in which claims are ranked.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// How long an order may take to be written.
    #[command(flatten)]
    pub write_limit: OrderWriteLimitArgs,

    /// Replicas of the order service, comma separated: http://host:port, or dns:///host:port for all that DNS has.
    #[arg(long, env = "STAMPEDE_ORDER_URLS", value_delimiter = ',', required = true, value_name = "URLS")]
    pub order_urls: Vec<String>,

    /// Milliseconds after which a claim that was ranked and not stored is finished by the sweep.
    #[arg(long, env = "STAMPEDE_COUPON_UNFINISHED_CLAIM_AGE_MS", default_value_t = 2_000, value_name = "MS")]
    pub unfinished_claim_age_ms: u64,

    /// Milliseconds after which the order service is queried about the order that a coupon is held for; the coupon of
    /// an order that was never written is returned then. At least one and a half times --order-write-limit-ms.
    #[arg(long, env = "STAMPEDE_COUPON_UNWRITTEN_HOLD_AGE_MS", default_value_t = 15_000, value_name = "MS")]
    pub unwritten_hold_age_ms: u64,
}

impl Config {
    /// Age from which a claim counts as unfinished.
    pub const fn unfinished_claim_age(&self) -> Duration {
        Duration::from_millis(self.unfinished_claim_age_ms)
    }

    /// Age from which the coupon of an order that was never written is returned. Fails if the order may still be
    /// written at that age.
    pub fn unwritten_hold_age(&self) -> anyhow::Result<Duration> {
        self.write_limit.unwritten_age("--unwritten-hold-age-ms", self.unwritten_hold_age_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.service.common
    }
}
