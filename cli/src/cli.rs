//! The command line: what can be asked for.

use crate::{
    audit,
    output::{Format, Output},
    prepare, simulate, token,
};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::io;

/// Prepare a mesh, simulate a flash sale against it, and audit its promises.
#[derive(Debug, Parser)]
#[command(name = "stampede", version, propagate_version = true)]
#[command(after_help = "Example:\n  stampede simulate examples/flash-sale.toml && stampede audit")]
pub struct Cli {
    /// How results are printed on stdout
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text, global = true)]
    format: Format,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How results are to be printed.
    pub fn output(&self) -> Output {
        Output::new(self.format)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the schemas, bring them to this release, and make the topics
    Prepare(prepare::Args),
    /// Run a whole sale against the gateway, as its buyers would
    Simulate(simulate::Args),
    /// Check every promise against the databases, Redis, Kafka and the payment provider
    Audit(audit::Args),
    /// Make a token, such as the operator's
    Token(token::Args),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  stampede completions bash > /etc/bash_completion.d/stampede")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Prints the completions of `shell` on stdout.
pub fn print_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "stampede", &mut io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
