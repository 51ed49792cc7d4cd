//! What the process is told by its flags and its environment.

use stampede_chassis::{CommonConfig, HasCommon};
use std::time::Duration;

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  stampede serve event --database-url mysql://stampede:stampede@127.0.0.1:3306/stampede_event \\
    --kafka-brokers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/1";

/// The event service: creates sale events, opens and closes them on time.
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

    /// Topics are named after it: <prefix>.event.
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// Redis for the timers, best a logical database or a small server of their own: redis://host:port/1.
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,

    /// Every Redis key starts with it.
    #[arg(long, env = "STAMPEDE_REDIS_KEY_PREFIX", default_value = "")]
    pub redis_key_prefix: String,

    /// An event cannot be rescheduled when less than this is left to its opening, in milliseconds.
    #[arg(long, env = "STAMPEDE_RESCHEDULE_LEAD_MS", default_value_t = 5_000)]
    pub reschedule_lead_ms: u64,

    /// How often at least the database is asked what is due next, in milliseconds. It bounds how late an event opens
    /// that another replica created, if its timer is lost as well.
    #[arg(long, env = "STAMPEDE_SWEEP_INTERVAL_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub sweep_interval_ms: u64,
}

impl Config {
    /// Least time between a reschedule and the old opening, and between it and the new one.
    pub fn reschedule_lead(&self) -> Duration {
        Duration::from_millis(self.reschedule_lead_ms)
    }

    /// Longest time between two looks for due events.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}
