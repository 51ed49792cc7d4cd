//! The flags that several services have, each with its environment variable.

use clap::{Args, ValueEnum};
use stampede_chassis::{CommonConfig, HasCommon};
use stampede_inbox::{MAX_POLL_INTERVAL_MS, SESSION_TIMEOUT_MS};
use stampede_vocab::limits::{DEFAULT_ORDER_WRITE_LIMIT_MS, least_unwritten_age};
use std::time::Duration;

/// Where `--help` lists the flags of servers.
const HEADING: &str = "Servers";

/// Part of the lease of a charge that is left after two requests that time out.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Configuration of every service: the process, its schema, and Kafka.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// The process.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Its schema.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// The schema of a service.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// Schema of the service: mysql://user:password@host:port/schema.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,

    /// Most connections to the database at a time.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..))]
    pub database_max_connections: u32,
}

/// Kafka.
#[derive(Debug, Clone, Args)]
pub struct KafkaArgs {
    /// Kafka brokers, comma separated: host:port.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    pub kafka_brokers: String,

    /// Prefix of topics and consumer groups: "stampede" gives "stampede.order".
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede", value_name = "PREFIX")]
    pub kafka_topic_prefix: String,

    /// Ids of the messages that are sent. During a roll-out, as long as a reader of the version before runs: "row".
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_KAFKA_MESSAGE_IDS", value_enum, default_value_t = MessageIds::Own)]
    pub kafka_message_ids: MessageIds,

    /// How long a consumer may apply nothing, as while its database is away, until its partitions go to another
    /// replica, in milliseconds.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_KAFKA_MAX_POLL_INTERVAL_MS", default_value_t = MAX_POLL_INTERVAL_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(SESSION_TIMEOUT_MS..=3_600_000))]
    pub kafka_max_poll_interval_ms: u64,
}

/// How ids of messages are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MessageIds {
    /// One that no other message has, not even after the database was restored.
    Own,
    /// The number of its row, as in the version before, whose consumers can read no other.
    Row,
}

/// The Redis of a service.
#[derive(Debug, Clone, Args)]
pub struct RedisArgs {
    /// Redis: redis://[user:password@]host:port[/database]; or a cluster, except in the event service:
    /// redis-cluster://[user:password@]host:port[,host:port...].
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: String,

    /// Prefix of every Redis key.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_REDIS_KEY_PREFIX", default_value = "", value_name = "PREFIX")]
    pub redis_key_prefix: String,
}

/// How long an order may take to be written. Order keeps it; inventory and coupon keep their holds for it longer.
#[derive(Debug, Clone, Args)]
pub struct OrderWriteLimitArgs {
    /// Milliseconds within which an order is written after its request, or refused. The order, inventory and coupon
    /// services need the same value: later they release their holds for it.
    #[arg(long, env = "STAMPEDE_ORDER_WRITE_LIMIT_MS", default_value_t = DEFAULT_ORDER_WRITE_LIMIT_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub order_write_limit_ms: u64,
}

impl OrderWriteLimitArgs {
    /// Returns the time within which an order is written or refused.
    pub const fn order_write_limit(&self) -> Duration {
        Duration::from_millis(self.order_write_limit_ms)
    }

    /// Returns the age at which stock or a coupon reserved for an order that was never written is released, as `flag`
    /// sets it. Fails if the order may still be written at that age.
    pub fn unwritten_age(&self, flag: &str, age_ms: u64) -> anyhow::Result<Duration> {
        let age = Duration::from_millis(age_ms);
        let least = least_unwritten_age(self.order_write_limit());
        anyhow::ensure!(
            age >= least,
            "{flag} is {age_ms}, but must be at least {}, one and a half times --order-write-limit-ms: \
             what is younger may belong to an order that is being written",
            least.as_millis()
        );
        Ok(age)
    }
}

/// How long a request to the payment provider may take. Payment keeps it; order waits for a charge under way by it.
#[derive(Debug, Clone, Args)]
pub struct ProviderTimeoutArgs {
    /// How long one request to the provider may take, in milliseconds. After that the outcome is unknown, and is
    /// looked up. The payment and order services need the same value.
    #[arg(long, env = "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", default_value_t = 2_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub provider_timeout_ms: u64,
}

impl ProviderTimeoutArgs {
    /// Returns the timeout of a request to the provider.
    pub const fn provider_timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms)
    }

    /// Returns the lease of the process that has claimed a charge: a look-up and a charge, and time to write their
    /// outcome.
    pub fn charge_lease(&self) -> Duration {
        self.provider_timeout() * 2 + LEASE_MARGIN
    }
}

/// How often a service looks for changes of what somebody watches. The `Config` of a service names the variable, which
/// begins with the service's name, and the default if it needs another one: `#[command(mut_arg(...))]`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Milliseconds between two polls for changes of what somebody watches. One poll serves all watchers of a replica.
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub watch_interval_ms: u64,
}

impl WatchArgs {
    /// Time between two polls.
    pub const fn interval(&self) -> Duration {
        Duration::from_millis(self.watch_interval_ms)
    }
}

impl HasCommon for ServiceArgs {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_stays_as_long_as_its_order_may_be_written() {
        let age = |order_write_limit_ms, age_ms| {
            OrderWriteLimitArgs { order_write_limit_ms }.unwritten_age("--age-ms", age_ms)
        };
        assert_eq!(age(8_000, 12_000).unwrap(), Duration::from_secs(12));
        assert!(age(200, 300).is_ok());
        let error = age(8_000, 11_999).unwrap_err().to_string();
        assert!(error.starts_with("--age-ms is 11999") && error.contains("at least 12000"), "{error}");
    }
}
