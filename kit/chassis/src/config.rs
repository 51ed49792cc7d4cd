//! The configuration of every process: flags, each with an environment variable of the same name.
//!
//! Nothing else in a process reads the environment.

use crate::mesh::MeshArgs;
use clap::{Args, ValueEnum};
use stampede_vocab::{ADMIN_PORT_OFFSET, Process};
use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};
use tracing_subscriber::filter::{ParseError, Targets};

/// Where `--help` lists these flags.
const HEADING: &str = "Process";

/// Parses levels by target, with optional spaces.
fn log_filter(text: &str) -> Result<Targets, ParseError> {
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    directives.join(",").parse()
}

/// Configuration that all processes have in common; flatten it into the service's own.
#[derive(Clone, Debug, Args)]
pub struct CommonConfig {
    /// Address to serve on; port 0 takes a free one.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_LISTEN_ADDR", default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub listen_addr: SocketAddr,

    /// Address for GET /healthz, /readyz and /metrics, and for gRPC health and reflection [default: 127.0.0.1, 100
    /// ports above --listen-addr]. Keep it off public networks.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_ADMIN_ADDR", value_name = "HOST:PORT")]
    pub admin_addr: Option<SocketAddr>,

    /// Format of log lines.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// Which log lines are written, such as "info" or "warn,stampede_order=debug".
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_LOG_FILTER", default_value = "info", value_name = "FILTER", value_parser = log_filter)]
    pub log_filter: Targets,

    /// OpenTelemetry collector to send spans to over gRPC, such as http://host:4317 [default: none].
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Share of new traces that is sent, from 0 to 1. A trace begun elsewhere is sent if it was there.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_OTLP_SAMPLE_RATIO", default_value_t = 1.0, value_parser = parse_ratio)]
    pub otlp_sample_ratio: f64,

    /// Milliseconds that calls and workers under way get to finish when the process is stopped.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_DRAIN_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS")]
    pub drain_timeout_ms: u64,

    /// Milliseconds to wait at start for each of the servers that the process needs.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_WAIT_FOR_SERVERS_MS", default_value_t = 60_000, value_name = "MS")]
    pub wait_for_servers_ms: u64,

    /// Threads that run the service [default: half of the cores, at least one].
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_WORKER_THREADS", value_name = "COUNT")]
    pub worker_threads: Option<NonZeroUsize>,

    /// Milliseconds by which the process takes the clock of its machine to be wrong: for tests of clocks that disagree.
    #[arg(
        long,
        hide = true,
        env = "STAMPEDE_CLOCK_WRONG_BY_MS",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "MS"
    )]
    pub clock_wrong_by_ms: i64,

    /// How the process knows the others of its mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For reading at a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// A configuration that contains [`CommonConfig`].
pub trait HasCommon {
    /// Returns the common part.
    fn common(&self) -> &CommonConfig;
}

impl CommonConfig {
    /// Returns the address of the admin server: the loopback interface, unless configured otherwise.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr.unwrap_or_else(|| {
            let port = match self.listen_addr.port() {
                0 => 0,
                port => port.saturating_add(ADMIN_PORT_OFFSET),
            };
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        })
    }

    /// Returns the longest time of a drain.
    pub const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// Returns the longest wait at start for each server.
    pub const fn wait_for_servers(&self) -> Duration {
        Duration::from_millis(self.wait_for_servers_ms)
    }

    /// Returns the number of threads of the runtime.
    ///
    /// Processes and servers share a machine, so none may take all cores. On two cores one thread served more calls
    /// than two, which mostly steal work from each other.
    pub fn worker_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.worker_threads.map_or((cores / 2).max(1), NonZeroUsize::get)
    }
}

/// Sets the default listen address to the port in the registry.
#[must_use]
pub fn with_default_address(command: clap::Command, process: Process) -> clap::Command {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, process.port()));
    command.mut_arg("listen_addr", |arg| arg.default_value(address.to_string()))
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    const ORDER: Process = Process::Service(stampede_vocab::Service::Order);

    #[derive(Debug, Parser)]
    struct Config {
        #[command(flatten)]
        common: CommonConfig,
    }

    fn parse_as(process: Process, flags: &[&str]) -> Result<CommonConfig, clap::Error> {
        let command = with_default_address(Config::command(), process);
        let matches = command.try_get_matches_from([&["stampede"], flags].concat())?;
        Config::from_arg_matches(&matches).map(|config| config.common)
    }

    #[test]
    fn each_service_has_its_port_and_the_admin_port_follows() {
        let config = parse_as(ORDER, &[]).unwrap();
        assert_eq!(config.listen_addr.to_string(), "127.0.0.1:7104");
        assert_eq!(config.admin_addr().to_string(), "127.0.0.1:7204");
        let moved = parse_as(ORDER, &["--listen-addr", "0.0.0.0:9000"]).unwrap();
        assert_eq!(moved.admin_addr().to_string(), "127.0.0.1:9100", "not on public networks");
        let free = parse_as(ORDER, &["--listen-addr", "127.0.0.1:0"]).unwrap();
        assert_eq!(free.admin_addr().port(), 0);
    }

    #[test]
    fn impossible_values_are_refused() {
        for flags in [
            ["--otlp-sample-ratio", "1.1"],
            ["--otlp-sample-ratio", "NaN"],
            ["--worker-threads", "0"],
            ["--listen-addr", "7104"],
            ["--log-format", "xml"],
            ["--no-such-flag", "1"],
        ] {
            assert!(parse_as(ORDER, &flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn there_is_at_least_one_thread_and_a_flag_decides() {
        assert!(parse_as(ORDER, &[]).unwrap().worker_threads() >= 1);
        assert_eq!(parse_as(ORDER, &["--worker-threads", "7"]).unwrap().worker_threads(), 7);
    }
}
