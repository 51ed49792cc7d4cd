//! The configuration of the sandbox: flags and environment.

use crate::fate::FaultRate;
use clap::ValueEnum;
use http::Uri;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  STAMPEDE_WEBHOOK_SECRET=... stampede serve sandbox --journal sandbox.journal \\
    --webhook-url http://127.0.0.1:8080/v1/payments:webhook";

/// The way in which a charge with a good card ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Its token alone: it is captured.
    Cards,
    /// The seed: some meet with the faults.
    Seeded,
}

/// A payment provider to practise against. Keeps its own records; never touches real money.
#[derive(Clone, clap::Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// Address to serve HTTP on.
    #[arg(long, env = "STAMPEDE_LISTEN_ADDR", default_value = "127.0.0.1:7190")]
    pub listen_addr: SocketAddr,

    /// File that the records are kept in; made if it is not there. One process at a time may use it.
    #[arg(long, env = "STAMPEDE_SANDBOX_JOURNAL", default_value = "sandbox.journal")]
    pub journal: PathBuf,

    /// URL to post a notice to after each capture, decline and refund. None without it.
    #[arg(long, env = "STAMPEDE_SANDBOX_WEBHOOK_URL", requires = "webhook_secret")]
    pub webhook_url: Option<Uri>,

    /// Secret that the provider signs its notices with.
    #[arg(long, env = "STAMPEDE_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,

    /// Delay of the answers to pm_card_timeout_captured and pm_card_timeout_lost.
    #[arg(long, env = "STAMPEDE_SANDBOX_SLOW_MS", default_value_t = 3_000)]
    pub slow_ms: u64,

    /// Time for which pm_card_late stays pending before it is captured, and a pending refund before it ends.
    #[arg(long, env = "STAMPEDE_SANDBOX_LATE_MS", default_value_t = 8_000)]
    pub late_ms: u64,

    /// The way in which a charge with pm_card_ok ends.
    #[arg(long, env = "STAMPEDE_SANDBOX_MODE", value_enum, default_value_t = Mode::Cards)]
    pub mode: Mode,

    /// Number that decides which charges, refunds and notices meet with a fault in the seeded mode.
    #[arg(long, env = "STAMPEDE_SANDBOX_SEED", default_value_t = 1)]
    pub seed: u64,

    /// Rate of each fault in the seeded mode, in percent, comma separated: delay, decline, timeout-before,
    /// timeout-after, fail, pending, pending-refund, failed-refund, duplicate-notice, late-notice, reorder-notice.
    #[arg(
        long,
        env = "STAMPEDE_SANDBOX_FAULTS",
        value_delimiter = ',',
        value_name = "NAME=PERCENT",
        default_value = "delay=10,decline=5,timeout-before=2,timeout-after=2,fail=2,pending=2,pending-refund=2,failed-refund=1,duplicate-notice=10,late-notice=5,reorder-notice=10"
    )]
    pub faults: Vec<FaultRate>,

    /// Longest delay of an answer in the seeded mode.
    #[arg(long, env = "STAMPEDE_SANDBOX_DELAY_MS", default_value_t = 300)]
    pub delay_ms: u64,

    /// Requests worked on at once; more are answered 503.
    #[arg(long, env = "STAMPEDE_SANDBOX_MAX_REQUESTS_IN_FLIGHT", default_value_t = 1_024)]
    pub max_requests_in_flight: usize,

    /// Longest wait for requests and notices under way at a stop.
    #[arg(long, env = "STAMPEDE_SANDBOX_DRAIN_TIMEOUT_MS", default_value_t = 5_000)]
    pub drain_timeout_ms: u64,
}

impl Config {
    pub(crate) fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_ms)
    }

    pub(crate) fn late(&self) -> Duration {
        Duration::from_millis(self.late_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}
