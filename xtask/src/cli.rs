//! The commands and their flags, as a contributor types them. No behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::replicas::Replicas;

/// Everything a contributor does with Stampede: set up, run, demonstrate, check.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask up --replicas order=2\n  cargo xtask test place_order"
)]
pub struct Cli {
    /// What to do.
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
    /// Stop what a killed `up`, `demo` or `test` left running, by the process ids it wrote down
    Down,
    /// Play a whole sale through a fresh mesh and prove that its promises held
    Demo(DemoArgs),
    /// Run every check there is, or the tests whose name contains NAME
    Test(TestArgs),
    /// Format the Rust code
    Fmt,
    /// Check formatting, clippy, the house rules and the contracts
    Lint,
    /// Check the house rules alone: which crate may use which, and how a file looks
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

/// Flags of `setup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask setup --database mariadb")]
pub struct SetupArgs {
    /// The database to set up
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
}

/// What the mesh is built as: the two flags exclude each other.
#[derive(Debug, Clone, Copy, Args)]
pub struct ProfileArgs {
    /// Build with optimisations (the default)
    #[arg(long, conflicts_with = "dev")]
    pub release: bool,
    /// Build without optimisations, for quick work
    #[arg(long)]
    pub dev: bool,
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
    /// The ports that were named, each with its flag.
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
    /// How long an order may wait for its payment [default: what the order service does by itself]
    #[arg(long, value_name = "MS", conflicts_with = "servers_only", value_parser = clap::value_parser!(u64).range(1..))]
    pub pay_window_ms: Option<u64>,
    /// Start Redis, the database and Kafka only
    #[arg(long)]
    pub servers_only: bool,
    /// Ports that were asked for.
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
    /// Ports that were asked for.
    #[command(flatten)]
    pub ports: PortArgs,
}

/// Flags of `test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test sold_out --database mariadb")]
pub struct TestArgs {
    /// Run only the tests whose name contains this, and none of the other checks
    pub name: Option<String>,
    /// The database to test on
    #[arg(long, value_enum, default_value_t = Database::Mysql)]
    pub database: Database,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_ends_with_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for name in ["setup", "up", "demo", "test"] {
            let help = command.find_subcommand_mut(name).expect("it is there").render_help().to_string();
            assert!(help.contains("Example") && help.contains(&format!("cargo xtask {name}")), "{help}");
        }
    }
}
