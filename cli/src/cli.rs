//! The command line: what can be asked for.

use crate::{
    audit,
    output::{self, Format, Output},
    prepare, simulate, token,
};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::{env, io, process::ExitCode};

/// Prepare a mesh, simulate a flash sale against it, and audit its promises.
#[derive(Debug, Parser)]
#[command(name = "stampede", version, propagate_version = true)]
#[command(after_help = "Example, beside a running `cargo xtask up --pay-window-ms 6000`:
  . .stampede/up/secrets.env
  stampede simulate examples/flash-sale.toml --acknowledged told.json && stampede audit --acknowledged told.json")]
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

/// Answers a command line that is none, or that asks for help.
pub fn not_understood(error: &clap::Error) -> ExitCode {
    // Nobody can be told that nobody listens.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if asks_for_json(env::args().skip(1)) {
        output::print_json_error(error.render().to_string().trim_end());
    }
    ExitCode::from(2)
}

/// Whether a command line that could not be parsed asks for JSON.
fn asks_for_json(args: impl IntoIterator<Item = String>) -> bool {
    let mut before = String::new();
    args.into_iter().any(|arg| {
        let separate = arg == "json" && ["-o", "--output"].contains(&before.as_str());
        let joined = ["-ojson", "-o=json", "--output=json"].contains(&arg.as_str());
        before = arg;
        separate || joined
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_in_any_way_that_the_parser_takes() {
        for line in ["-o json audit", "audit -ojson", "audit --output=json", "audit --output json x", "-o=json"] {
            assert!(asks_for_json(line.split(' ').map(str::to_owned)), "{line}");
        }
        for line in ["audit --json file", "json", "-o text json", "--acknowledged json"] {
            assert!(!asks_for_json(line.split(' ').map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
