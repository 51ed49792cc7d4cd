//! Configuration of the process, by flags and environment variables only.

use clap::Parser;
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_service::{RedisArgs, ServiceArgs, WatchArgs};
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve event --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_event \\
    --kafka-brokers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/1 --inventory-urls http://127.0.0.1:7103";

/// The event service: creates sale events, opens and closes them on time.
///
/// It needs its MySQL schema (made by `stampede prepare`), Kafka, the inventory service, and a Redis for its timers:
/// best a logical database or a small server of their own.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
// Shorter than in other services: a crowd waits here for the opening.
#[command(mut_arg("watch_interval_ms", |arg| arg.env("STAMPEDE_EVENT_WATCH_INTERVAL_MS").default_value("100")))]
pub struct Config {
    /// The configuration that every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The Redis of the timers.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// Replicas of the inventory service, comma separated: http://host:port, or dns:///host:port for all that DNS has.
    #[arg(long, env = "STAMPEDE_INVENTORY_URLS", value_delimiter = ',', required = true, value_name = "URLS")]
    pub inventory_urls: Vec<String>,

    /// An event cannot be rescheduled when less than this is left to its opening, in milliseconds.
    #[arg(long, env = "STAMPEDE_EVENT_RESCHEDULE_LEAD_MS", default_value_t = 5_000, value_name = "MS")]
    pub reschedule_lead_ms: u64,

    /// Longest time between two reads of what is due next from the database, in milliseconds. It bounds how late an
    /// event opens that another replica created, if its timer is lost as well.
    #[arg(long, env = "STAMPEDE_EVENT_SWEEP_INTERVAL_MS", default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub sweep_interval_ms: u64,

    /// A transition that is later than this counts as missed, in milliseconds: it is made all the same, counted and
    /// logged with how late it was.
    #[arg(long, env = "STAMPEDE_EVENT_MISSED_AFTER_MS", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub missed_after_ms: u64,

    /// How often watched events are read.
    #[command(flatten)]
    pub watch: WatchArgs,
}

impl Config {
    /// Least time between a reschedule and the old opening, and between it and the new one.
    pub const fn reschedule_lead(&self) -> Duration {
        Duration::from_millis(self.reschedule_lead_ms)
    }

    /// Longest time between two reads of due events.
    pub const fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    /// Lateness from which on a transition counts as missed.
    pub const fn missed_after(&self) -> Duration {
        Duration::from_millis(self.missed_after_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.service.common
    }
}
