//! Configuration of the process, by flags and environment variables only.

use crate::domain::PaymentPolicy;
use anyhow::ensure;
use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_service::{OrderWriteLimitArgs, ProviderTimeoutArgs, ServiceArgs, WatchArgs};
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
#[command(mut_arg("watch_interval_ms", |arg| arg.env("STAMPEDE_ORDER_WATCH_INTERVAL_MS")))]
pub struct Config {
    /// The configuration that every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// How long an order may take to be written.
    #[command(flatten)]
    pub write_limit: OrderWriteLimitArgs,

    /// Replicas of the inventory service, comma separated: http://host:port, or dns:///host:port for all that DNS has.
    #[arg(long, env = "STAMPEDE_INVENTORY_URLS", value_delimiter = ',', required = true, value_name = "URLS")]
    pub inventory_urls: Vec<String>,

    /// Replicas of the coupon service, comma separated: http://host:port, or dns:///host:port for all that DNS has.
    #[arg(long, env = "STAMPEDE_COUPON_URLS", value_delimiter = ',', required = true, value_name = "URLS")]
    pub coupon_urls: Vec<String>,

    /// Milliseconds that a buyer has to pay, from when the order is accepted.
    #[arg(long, env = "STAMPEDE_PAY_WINDOW_MS", default_value_t = 600_000, value_name = "MS")]
    pub pay_window_ms: u64,

    /// Milliseconds after the deadline in which a payment under way may still succeed. It must be longer than the lease
    /// of a charge, so that another process can finish the charge of one that was killed; 0 waits for no payment.
    #[arg(long, env = "STAMPEDE_ORDER_PAYING_GRACE_MS", default_value_t = 15_000, value_name = "MS")]
    pub paying_grace_ms: u64,

    /// How long a charge may be under way.
    #[command(flatten)]
    pub provider: ProviderTimeoutArgs,

    /// Most payments of one order, each after the decline of the one before.
    #[arg(long, env = "STAMPEDE_ORDER_MAX_PAY_ATTEMPTS", default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub max_pay_attempts: i32,

    /// Milliseconds that a buyer has to wait after the third decline before they pay again; twice as long after each
    /// further one, up to a minute.
    #[arg(long, env = "STAMPEDE_ORDER_PAY_PAUSE_MS", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub pay_pause_ms: u64,

    /// Milliseconds after which an order requests the answer of another service again; twice as long each time, up to
    /// an hour.
    #[arg(long, env = "STAMPEDE_ORDER_ASK_AGAIN_MS", default_value_t = 30_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub ask_again_ms: u64,

    /// Milliseconds between two sweeps for orders whose payment deadline has passed.
    #[arg(long, env = "STAMPEDE_ORDER_SWEEP_INTERVAL_MS", default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_interval_ms: u64,

    /// Most orders that a filtered page of a list scans. The next page continues after them.
    #[arg(long, env = "STAMPEDE_ORDER_LIST_LOOKS_AT", default_value_t = 2_000, value_name = "COUNT", hide = true, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub list_looks_at: u32,

    /// How often watched orders are read.
    #[command(flatten)]
    pub watch: WatchArgs,
}

impl Config {
    /// Fails for flags that contradict each other.
    pub fn check(&self) -> anyhow::Result<()> {
        let (grace_ms, lease) = (self.paying_grace_ms, self.provider.charge_lease());
        ensure!(
            grace_ms == 0 || u128::from(grace_ms) > lease.as_millis(),
            "--paying-grace-ms is {grace_ms}, but must be 0 or more than {}, the lease of a charge by \
             --provider-timeout-ms: the charge of a killed process would be finished after the order has expired",
            lease.as_millis()
        );
        Ok(())
    }

    /// Returns the time limits and back-off of payments and answers.
    pub const fn payment_policy(&self) -> PaymentPolicy {
        PaymentPolicy {
            max_attempts: self.max_pay_attempts,
            pay_pause: Duration::from_millis(self.pay_pause_ms),
            pay_window: Duration::from_millis(self.pay_window_ms),
            paying_grace: Duration::from_millis(self.paying_grace_ms),
            ask_backoff: Duration::from_millis(self.ask_again_ms),
        }
    }

    /// Interval of the deadline sweep.
    pub const fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    /// Returns the interval of the sweep for overdue answers: short beside the back-off, but not so short that it loads
    /// the database.
    pub fn ask_interval(&self) -> Duration {
        Duration::from_millis(self.ask_again_ms / 4).clamp(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.service.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Config {
        let servers = ["--database-url", "mysql://x", "--kafka-brokers", "x:1"];
        let peers = ["--inventory-urls", "http://x:1", "--coupon-urls", "http://x:2"];
        let args = ["order"].iter().chain(&servers).chain(&peers).chain(flags);
        Config::try_parse_from(args).expect("the flags are known")
    }

    #[test]
    fn a_grace_that_is_over_before_the_lease_of_a_charge_is_refused_by_both_names() {
        assert!(config(&[]).check().is_ok());
        assert!(config(&["--paying-grace-ms", "0"]).check().is_ok());
        assert!(config(&["--paying-grace-ms", "6001", "--provider-timeout-ms", "500"]).check().is_ok());
        let error = config(&["--paying-grace-ms", "9000"]).check().unwrap_err().to_string();
        assert!(error.contains("--paying-grace-ms is 9000") && error.contains("--provider-timeout-ms"), "{error}");
    }
}
