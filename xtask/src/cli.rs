//! The commands and their flags, as a contributor types them. No behaviour.

use crate::replicas::{self, Replicas};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Everything a contributor does with Stampede: set up, run, demonstrate, check.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask up --replicas order=2\n  cargo xtask test place_order"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// One command of the surface.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find or install what the build, the servers and the checks need
    Setup(SetupArgs),
    /// Run the whole mesh on its own servers, in the foreground, until Ctrl-C
    Up(UpArgs),
    /// Stop what a killed `up`, `demo`, `bench`, `chaos` or `test` left running, by the process ids it wrote down
    Down,
    /// Play a whole sale through a fresh mesh and prove that its promises held
    Demo(DemoArgs),
    /// Put load on a mesh with ghz or JMeter, or on the gateway alone with wrk, and report the cost of a call
    Bench(BenchArgs),
    /// Break one thing after another while small sales go on, and prove each time that the promises held
    Chaos(ChaosArgs),
    /// Run every check, or the tests whose name contains NAME
    Test(TestArgs),
    /// Generate the clients in other languages from the contracts, and build them
    Clients(ClientsArgs),
    /// Write docs/openapi.json, the description of the API, anew from the contract
    Openapi,
    /// Format the Rust code, and write the lists of processes in deploy/
    Fmt,
    /// Check formatting, clippy, the house rules and the contracts
    Lint(LintArgs),
    /// Check the house rules alone: the dependencies between crates, and the shape of files
    Tidy,
}

/// The SQL database to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Database {
    /// MySQL 8.0
    Mysql,
    /// MariaDB 10.11 or later
    Mariadb,
}

impl Database {
    /// The name of its directory, its log and its status line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }
}

/// The Redis to test on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RedisKind {
    /// One server
    Server,
    /// A cluster of three masters, each with a replica, and one server for the timers of events
    Cluster,
}

/// Flags of `setup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask setup --database mariadb")]
pub struct SetupArgs {
    /// The database to set up
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
}

/// The build profile of the mesh: the flags exclude each other.
#[derive(Debug, Clone, Copy, Args)]
pub struct ProfileArgs {
    /// Build with all optimisations: what an image or a benchmark runs
    #[arg(long, conflicts_with = "dev")]
    pub release: bool,
    /// Build without optimisations, for quick work
    #[arg(long)]
    pub dev: bool,
}

/// How the mesh is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Without optimisations.
    Dev,
    /// The fastest build that is not much slower to run.
    Demo,
    /// With all optimisations.
    Release,
}

impl ProfileArgs {
    /// Returns the profile that the flags name, or `default`.
    pub fn or(self, default: Profile) -> Profile {
        match self {
            Self { dev: true, .. } => Profile::Dev,
            Self { release: true, .. } => Profile::Release,
            Self { .. } => default,
        }
    }
}

impl Profile {
    /// Its name in the workspace's manifest.
    pub fn cargo_name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Demo => "demo",
            Self::Release => "release",
        }
    }

    /// Directory in which cargo puts the binaries of the profile.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Demo | Self::Release => self.cargo_name(),
        }
    }

    /// For the contributor.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Dev => "not optimised (--dev)",
            Self::Demo => "optimised for a quick build (--release is faster to run)",
            Self::Release => "with all optimisations",
        }
    }
}

/// Ports that must be these and no others; a port not named here moves on to the next free one.
#[derive(Debug, Clone, Default, Args)]
pub struct PortArgs {
    /// The gateway's HTTP port [default: 8080, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub gateway_port: Option<u16>,
    /// Redis' port [default: 7379, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub redis_port: Option<u16>,
    /// The database's port [default: 7306, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub database_port: Option<u16>,
    /// Kafka's port [default: 7092, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub kafka_port: Option<u16>,
}

impl PortArgs {
    /// Returns the ports that were named, each with its flag.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let all = [
            ("--gateway-port", self.gateway_port),
            ("--redis-port", self.redis_port),
            ("--database-port", self.database_port),
            ("--kafka-port", self.kafka_port),
        ];
        all.into_iter().filter_map(|(flag, port)| Some((flag, port?)))
    }
}

/// Flags of `up`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask up --replicas order=2,event=3 --gateway-port 8080")]
pub struct UpArgs {
    /// How to build.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The database to run on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
    /// How many processes of a service to run, such as order=2,event=3 (others: one)
    #[arg(long, value_name = "SERVICE=N,...", default_value = "")]
    pub replicas: Replicas,
    /// How long an order may wait for its payment [default: that of the order service]
    #[arg(long, value_name = "MS", conflicts_with = "servers_only", value_parser = clap::value_parser!(u64).range(1..))]
    pub pay_window_ms: Option<u64>,
    /// Start Redis, the database and Kafka only
    #[arg(long)]
    pub servers_only: bool,
    /// Ports named by flags.
    #[command(flatten)]
    pub ports: PortArgs,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask demo --sale examples/rush.toml --json figures.json")]
pub struct DemoArgs {
    /// The sale to play
    #[arg(long, value_name = "FILE", default_value = "examples/flash-sale.toml")]
    pub sale: PathBuf,
    /// How many buyers come, in place of the number in the sale's file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub buyers: Option<u32>,
    /// Write the figures of the simulation to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave the mesh running afterwards, as `up` does
    #[arg(long)]
    pub keep: bool,
    /// How to build.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The database to run on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
    /// How many processes of a service to run, such as order=2,event=3 (others: one)
    #[arg(long, value_name = "SERVICE=N,...", default_value = "")]
    pub replicas: Replicas,
    /// Ports named by flags.
    #[command(flatten)]
    pub ports: PortArgs,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench ghz claim-coupon\n  cargo xtask bench jmeter order-flow")]
pub struct BenchArgs {
    /// The load generator.
    #[command(subcommand)]
    pub generator: Generator,
}

/// A load generator.
#[derive(Debug, Subcommand)]
pub enum Generator {
    /// gRPC to the services themselves, by the plans of ghz-bench/
    Ghz(GhzArgs),
    /// HTTP to the gateway, by the plans of jmeter-bench/
    Jmeter(JmeterArgs),
    /// HTTP through the gateway alone to a bare gRPC handler, by wrk, beside a bare hop in the same run
    Gateway(GatewayArgs),
    /// No load: how late events open that are due at the same instant, among many that are planned
    EventOpen(EventOpenArgs),
    /// A crowd that watches an event: how soon all are notified of a change, and the cost of a watcher
    Watchers(WatchersArgs),
}

/// The mesh under load, and the duration of a plan.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The gateway of a mesh that runs already, whose services are at their usual ports of the same host. It has to
    /// trust STAMPEDE_AUTH_SECRET [default: a mesh is started]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_target, conflicts_with_all = ["dev", "release"])]
    pub target: Option<String>,
    /// How long each plan lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How to build: with all optimisations, unless --dev is given.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The database to run on
    #[arg(long, value_enum, default_value_t = Database::Mysql, conflicts_with = "target")]
    pub database: Database,
}

fn parse_target(text: &str) -> Result<String, String> {
    let named = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if named { Ok(text.to_owned()) } else { Err("expected HOST:PORT, such as 127.0.0.1:8080".to_owned()) }
}

/// Flags of `bench ghz`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench ghz\n  cargo xtask bench ghz place-order --rate 800 --seconds 30
  cargo xtask bench ghz place-order --share 60 --p99-ms 25
  STAMPEDE_AUTH_SECRET=... cargo xtask bench ghz get-order --target 127.0.0.1:8080"
)]
pub struct GhzArgs {
    /// Plans, such as claim-coupon (in both forms) or claim-coupon.open [default: all]
    #[arg(value_name = "PLAN")]
    pub plans: Vec<String>,
    /// Calls a second, of the open plans; closed ones are left out
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// The rate of the open plans, in percent of the most that waiting callers get, who are more and more
    #[arg(long, value_name = "PERCENT", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub share: Option<u32>,
    /// Fail if one in a hundred calls of an open plan takes longer
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub p99_ms: Option<u32>,
    /// Where and how long.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Flags of `bench jmeter`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench jmeter\n  cargo xtask bench jmeter coupon-issue --users 500")]
pub struct JmeterArgs {
    /// Plans, such as order-flow [default: all]
    #[arg(value_name = "PLAN")]
    pub plans: Vec<String>,
    /// How many users come
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub users: u32,
    /// Where and how long.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Flags of `bench gateway`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask bench gateway --rounds 5 --json > gateway.json")]
pub struct GatewayArgs {
    /// How long each case is measured in each round
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How often each case is measured, in turn with the others; the median is shown
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Print the figures as JSON in place of the table
    #[arg(long)]
    pub json: bool,
    /// How to build: with all optimisations, unless --dev is given.
    #[command(flatten)]
    pub profile: ProfileArgs,
}

/// Flags of `bench event-open`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench event-open\n  cargo xtask bench event-open --due 1000 --ahead 100000 --keys 1000000"
)]
pub struct EventOpenArgs {
    /// Events that are due at the same instant
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub due: u32,
    /// Events that are planned for later
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub ahead: u32,
    /// Other keys that expire, in the logical database of the timers
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub keys: u32,
    /// Replicas of the event service
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub replicas: u32,
    /// Instants of each way: the listener is cut at the first, is not at the second, and so on
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Events of each instant in which a buyer tries to be the first
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=100))]
    pub orders: u32,
    /// Time between two recovery passes of the naive way
    #[arg(long = "recovery", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=600))]
    pub recovery_s: u32,
    /// How long an idle mesh is measured
    #[arg(long = "idle", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub idle_s: u32,
    /// How to build: with all optimisations, unless --dev is given.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The database to run on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
}

/// Flags of `bench watchers`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask bench watchers --watchers 20000")]
pub struct WatchersArgs {
    /// How many watch, each by a stream of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub watchers: u32,
    /// How often the event changes
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub changes: u32,
    /// Give each watcher an HTTP/1 connection, in place of an HTTP/2 connection for each hundred
    #[arg(long)]
    pub http1: bool,
    /// Print the figures as JSON in place of the table
    #[arg(long)]
    pub json: bool,
    /// Where, and for how long their silence is measured.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Flags of `chaos`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask chaos --minutes 20\n  cargo xtask chaos --seed 7 --json > chaos.json")]
pub struct ChaosArgs {
    /// How long to go on; the round under way is played to its end
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    pub minutes: u32,
    /// The seed of the plan: the same seed breaks the same things in the same order [default: another one each time]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Print the faults and verdicts as JSON in place of the table
    #[arg(long)]
    pub json: bool,
    /// How to build.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// The database to run on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
    /// How many processes of a service to run; of those that have more than one, one is struck alone too
    #[arg(long, value_name = "SERVICE=N,...", default_value = replicas::of_each(2))]
    pub replicas: Replicas,
}

/// Flags of `lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Check only whether a dependency has a known weakness, by the database of RustSec, which is fetched
    #[arg(long)]
    pub advisories: bool,
}

/// Flags of `test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test sold_out --database mariadb
  cargo xtask test -p inventory --redis cluster\n  cargo xtask test -p order placing --up
  cargo xtask test -p gateway fuzz --fuzz-s 3600
  cargo xtask test compose\n  cargo xtask test clients\n  cargo xtask test openapi\n  cargo xtask test h2spec")]
pub struct TestArgs {
    /// Run only the tests whose name contains this, and none of the other checks; `compose` tests the containers, for
    /// which it needs Docker, `clients` the clients in other languages, each if its tools are here, `openapi` whether
    /// the gateway answers as it is described, and `h2spec` how it speaks HTTP/2
    pub name: Option<String>,
    /// Compile and test this crate alone, such as order or db
    #[arg(long, short, value_name = "CRATE")]
    pub package: Option<String>,
    /// Run only the unit tests of the crate, which need neither servers nor the program
    #[arg(long, requires = "package")]
    pub lib: bool,
    /// Test on the servers of a running `up`, which go on afterwards: `cargo xtask up --servers-only` in another shell
    #[arg(long, conflicts_with_all = ["database", "redis", "lib"])]
    pub up: bool,
    /// The database to test on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
    /// The Redis to test on
    #[arg(long, value_enum, default_value_t = RedisKind::Server)]
    pub redis: RedisKind,
    /// Fuzz the gateway for so many seconds; a minute, unless given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub fuzz_s: Option<u64>,
    /// Draw from this seed, as a failure shows it
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
}

/// A language that there is a client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Python, with types
    Python,
    /// Go
    Go,
    /// TypeScript, as ECMAScript modules
    Typescript,
    /// Java
    Java,
}

impl Language {
    /// The name of its folder and its status line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Go => "go",
            Self::Typescript => "typescript",
            Self::Java => "java",
        }
    }
}

/// Flags of `clients`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask clients\n  cargo xtask clients python\n  cargo xtask test clients")]
pub struct ClientsArgs {
    /// The language [default: each whose tools are installed]
    #[arg(value_enum, value_name = "LANG")]
    pub language: Option<Language>,
}

#[cfg(test)]
mod tests;
