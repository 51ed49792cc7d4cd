//! All limits of the gateway on its clients. Those of connections are flags here, with the defaults of the server.
//!
//! docs/security.md has the reason for each default, and its metric. Rate limits, such as logins and claims a minute,
//! are in `crate::acts`.

use crate::{
    hold::{Class, PoolBounds},
    upstream::CallLimits,
};
use stampede_chassis::{HttpBounds, Network, Networks};
use std::time::Duration;

/// Longest wait for a whole body, which is small.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the next part of a body.
pub const BODY_PROGRESS_DEADLINE: Duration = Duration::from_secs(2);
/// Answers with more bytes are counted by their bytes until they are written. Smaller ones are limited by their number.
pub const COUNTED_ANSWER_BYTES: usize = 16 * 1024;
/// Largest answer as JSON: each address, and each user, may have one, whatever their share.
pub const LARGEST_ANSWER_BYTES: usize = 32 << 20;
/// Bytes of answers to public reads that are kept for a moment, with their requests.
pub const MAX_SHARED_READ_BYTES: u64 = 32 << 20;
/// Most messages that wait for one watcher, one a subject, as the contract allows no more subjects.
pub const MAX_WAITING_MESSAGES: usize = 128;
/// Longest life of a stream; less up to a tenth at random, so that clients do not reconnect together.
pub const STREAM_LIFE: Duration = Duration::from_secs(3_600);

/// Bounds of one request, and of all of them together.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitConfig {
    /// Longest wait for a service, in milliseconds.
    #[arg(long, env = "STAMPEDE_REQUEST_TIMEOUT_MS", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub request_timeout_ms: u64,

    /// Largest body of a request, in bytes.
    #[arg(long, env = "STAMPEDE_BODY_LIMIT_BYTES", value_name = "BYTES", default_value_t = 64 * 1024)]
    pub body_limit_bytes: usize,

    /// Requests under way at a time, from the end of their body to the end of their answer. Each class, such as
    /// payments, has a share of its own; more are answered OVERLOADED.
    #[arg(long, env = "STAMPEDE_MAX_IN_FLIGHT", value_name = "COUNT", default_value_t = 8_192)]
    pub max_in_flight: usize,

    /// Open event streams; more are answered OVERLOADED.
    #[arg(long, env = "STAMPEDE_MAX_STREAMS", value_name = "COUNT", default_value_t = 32_768)]
    pub max_streams: usize,

    /// Subjects of all open event streams together, such as the events that are watched, each counted for each watcher.
    #[arg(long, env = "STAMPEDE_MAX_SUBJECTS", value_name = "COUNT", default_value_t = 65_536)]
    pub max_subjects: usize,

    /// Bytes of bodies that have not arrived whole.
    #[arg(long, env = "STAMPEDE_MAX_UNFINISHED_BYTES", value_name = "BYTES", default_value_t = 16 << 20)]
    pub max_unfinished_bytes: usize,

    /// Bytes of large answers that have not been read.
    #[arg(long, env = "STAMPEDE_MAX_UNREAD_BYTES", value_name = "BYTES", default_value_t = 96 << 20)]
    pub max_unread_bytes: usize,

    /// Connections at a time; over it the idlest are closed, and then newcomers.
    #[arg(long, env = "STAMPEDE_MAX_CONNECTIONS", value_name = "COUNT",
          default_value_t = HttpBounds::default().max_connections)]
    pub max_connections: usize,

    /// The part of each of these bounds that one address may take, in percent; a /64 of IPv6 is one address. A buyer
    /// may take as much of the bytes of bodies and of answers. More is answered THROTTLED. Set 100 where all buyers
    /// come from one address, as in a load test.
    #[arg(long, env = "STAMPEDE_ADDRESS_SHARE_PERCENT", value_name = "PERCENT", default_value_t = 12,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub address_share_percent: u8,

    /// Requests of one buyer under way at a time.
    #[arg(long, env = "STAMPEDE_MAX_IN_FLIGHT_OF_USER", value_name = "COUNT", default_value_t = 64)]
    pub max_in_flight_of_user: usize,

    /// Open event streams of one buyer.
    #[arg(long, env = "STAMPEDE_MAX_STREAMS_OF_USER", value_name = "COUNT", default_value_t = 16)]
    pub max_streams_of_user: usize,

    /// Proxies in front of the gateway, by address or network, comma separated. Their x-forwarded-for and traceparent
    /// are trusted; those of others are ignored.
    #[arg(long, env = "STAMPEDE_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Longest wait for the head of a request, from the first moment of a connection, in milliseconds.
    #[arg(long, env = "STAMPEDE_HEAD_TIMEOUT_MS", value_name = "MS",
          default_value_t = millis(HttpBounds::default().head_deadline),
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub head_timeout_ms: u64,

    /// Longest time that a connection may be without a request, in milliseconds.
    #[arg(long, env = "STAMPEDE_IDLE_TIMEOUT_MS", value_name = "MS",
          default_value_t = millis(HttpBounds::default().idle_deadline),
          value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub idle_timeout_ms: u64,

    /// Age at which a connection is asked to end once its requests are answered, in seconds.
    #[arg(long, env = "STAMPEDE_MAX_CONNECTION_AGE_S", value_name = "SECONDS",
          default_value_t = HttpBounds::default().max_age.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub max_connection_age_s: u64,

    /// Longest time that a reader may take nothing of its answer, in milliseconds; a watcher is given up after half of
    /// it. Time over 10 s is added to the wait for a peer that has vanished.
    #[arg(long, env = "STAMPEDE_READ_STALL_MS", value_name = "MS",
          default_value_t = millis(HttpBounds::default().stall_deadline),
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub read_stall_ms: u64,

    /// Interval at which a peer over HTTP/2 is pinged, and longest wait for its answer, in milliseconds.
    #[arg(long, env = "STAMPEDE_PING_INTERVAL_MS", value_name = "MS",
          default_value_t = millis(HttpBounds::default().ping_interval),
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub ping_interval_ms: u64,
}

fn millis(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_millis()).expect("a deadline is minutes at most")
}

impl LimitConfig {
    /// Returns the limits of a call to a service: the longest wait for it.
    pub fn call(&self) -> CallLimits {
        CallLimits { deadline: Duration::from_millis(self.request_timeout_ms) }
    }

    /// Returns the bounds of connections: how many there may be, in all and from an address that is no trusted proxy,
    /// their deadlines and age, and how often they are pinged.
    pub fn http(&self) -> HttpBounds {
        HttpBounds {
            max_connections: self.max_connections,
            max_connections_of_address: self.of_address(self.max_connections),
            trusted_proxies: self.trusted(),
            head_deadline: Duration::from_millis(self.head_timeout_ms),
            idle_deadline: Duration::from_millis(self.idle_timeout_ms),
            max_age: Duration::from_secs(self.max_connection_age_s),
            ping_interval: Duration::from_millis(self.ping_interval_ms),
            ..HttpBounds::default()
        }
        .with_stall_deadline(Duration::from_millis(self.read_stall_ms))
    }

    /// Returns the longest time in which a watcher takes no message while one waits: half of the time after which its
    /// stream or connection is cut. Whoever reads on within the other half is told why it was given up.
    pub fn watcher_stall(&self) -> Duration {
        Duration::from_millis(self.read_stall_ms) / 2
    }

    /// Returns the trusted proxies.
    pub fn trusted(&self) -> Networks {
        self.trusted_proxies.clone().into()
    }

    /// Returns the bounds of requests under way.
    pub fn requests(&self) -> PoolBounds {
        let of_user = self.max_in_flight_of_user;
        PoolBounds { of_user, ..self.pool("requests", "requests are under way", self.max_in_flight) }
    }

    /// Returns the bounds of the bytes of bodies that arrive.
    pub fn bodies(&self) -> PoolBounds {
        self.pool("body_bytes", "bodies are arriving", self.max_unfinished_bytes)
    }

    /// Returns the bounds of the bytes of large answers that are not written.
    pub fn answers(&self) -> PoolBounds {
        let pool = self.pool("answer_bytes", "answers are waiting to be read", self.max_unread_bytes);
        let share = pool.of_address.max(LARGEST_ANSWER_BYTES);
        PoolBounds { of_address: share, of_user: share, kept_percent: Class::kept_percent_of_answers, ..pool }
    }

    /// Returns the bounds of open streams: in all, of an address and of a user, with a share for each class.
    pub fn streams(&self) -> PoolBounds {
        let (of_user, kept_percent) = (self.max_streams_of_user, Class::kept_percent_of_streams);
        PoolBounds { of_user, kept_percent, ..self.pool("streams", "streams are open", self.max_streams) }
    }

    /// Returns the bounds of the subjects of open streams. A buyer has none: theirs are bounded by their streams.
    pub fn subjects(&self) -> PoolBounds {
        let (of_user, kept_percent) = (self.max_subjects, Class::kept_percent_of_streams);
        PoolBounds { of_user, kept_percent, ..self.pool("subjects", "subjects are watched", self.max_subjects) }
    }

    /// Returns a pool that is bounded by its total and the share of an address, or of a user, with a share for each
    /// class.
    fn pool(&self, name: &'static str, what: &'static str, total: usize) -> PoolBounds {
        let (share, kept_percent) = (self.of_address(total), Class::kept_percent);
        PoolBounds { name, what, total, of_address: share, of_user: share, kept_percent }
    }

    /// Returns the share of an address: at least 1, however small the total.
    fn of_address(&self, total: usize) -> usize {
        (total.saturating_mul(usize::from(self.address_share_percent)) / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    const PAGE: &str = include_str!("../../docs/security.md");

    /// Returns a default as the page writes it.
    fn written(flag: &str, value: u64) -> String {
        match flag.rsplit('-').next() {
            Some("ms") => format!("{} s", value / 1_000),
            Some("s") => format!("{} min", value / 60),
            Some("bytes") if value < 1 << 20 => format!("{} KiB", value >> 10),
            Some("bytes") => format!("{} MiB", value >> 20),
            Some("percent") => format!("{value} %"),
            _ if value >= 1_000 => format!("{},{:03}", value / 1_000, value % 1_000),
            _ => value.to_string(),
        }
    }

    #[test]
    fn the_page_has_the_flag_of_every_bound_beside_its_default() {
        let limits = LimitConfig::augment_args(Command::new("gateway"));
        for bound in limits.get_arguments() {
            let flag = bound.get_long().unwrap();
            let default =
                bound.get_default_values().first().map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
            let default = default.map(|value| written(flag, value)).unwrap_or_default();
            let quoted = format!("`--{flag}`");
            // Not 10 s for 0 s.
            let whole = format!(" {default}");
            let is_there = PAGE.lines().any(|line| line.contains(&quoted) && format!(" {line}").contains(&whole));
            assert!(is_there, "docs/security.md has no {default} beside {quoted}");
        }
    }

    #[test]
    fn the_largest_list_fits_beside_what_is_kept_and_what_another_address_leaves_unread() {
        let flags = LimitConfig::augment_args(Command::new("gateway"));
        let bounds = LimitConfig::from_arg_matches(&flags.get_matches_from(["gateway"])).unwrap().answers();
        let kept = Class::ALL.into_iter().map(|class| bounds.total * (bounds.kept_percent)(class) / 100);
        assert!(bounds.total - kept.sum::<usize>() >= bounds.of_address + LARGEST_ANSWER_BYTES, "{bounds:?}");
    }

    #[test]
    fn a_reader_with_more_time_is_not_taken_for_one_that_has_vanished() {
        for ms in ["1", "10000", "60000"] {
            let flags = LimitConfig::augment_args(Command::new("gateway"));
            let given = flags.get_matches_from(["gateway", "--read-stall-ms", ms]);
            let bounds = LimitConfig::from_arg_matches(&given).unwrap().http();
            assert!(bounds.stall_deadline < bounds.vanish_deadline, "{bounds:?}");
        }
    }

    #[test]
    fn a_watcher_is_given_up_before_its_connection_is_cut() {
        for ms in ["1", "10000", "60000"] {
            let flags = LimitConfig::augment_args(Command::new("gateway"));
            let given = flags.get_matches_from(["gateway", "--read-stall-ms", ms]);
            let limits = LimitConfig::from_arg_matches(&given).unwrap();
            // It is looked at twice in this time, so it may be given up by a half of it later.
            let at_the_latest = limits.watcher_stall() * 3 / 2;
            assert!(at_the_latest < limits.http().stall_deadline, "{at_the_latest:?}");
        }
    }
}
