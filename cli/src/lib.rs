//! `stampede`, the operator's command: prepare a mesh, simulate a sale against it, audit its promises.
//!
//! Results go to stdout, logs and progress to stderr. Simulating talks only to the gateway, as buyers do; auditing reads
//! every schema, Redis and Kafka, and changes nothing.

pub mod audit;
mod cli;
mod output;
mod prepare;
pub mod simulate;
mod token;

use anyhow::ensure;
use clap::Parser;
use cli::{Cli, Command};
use output::Output;
use std::process::ExitCode;

/// Runs the command line. Exit code 0: done, and as it should be; 1: a promise is broken or the sale went wrong;
/// 2: the command could not do its work. With `-o json` a reason for 2 is on stdout too, as `{"error": {"message": ...}}`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::not_understood(&error),
    };
    let output = cli.output();
    output::init_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return could_not(&error.into(), output),
    };
    match runtime.block_on(run(cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => could_not(&error, output),
    }
}

async fn run(cli: Cli) -> anyhow::Result<bool> {
    let output = cli.output();
    match cli.command {
        Command::Prepare(args) => prepare::run(args, output).await.map(|()| true),
        Command::Simulate(args) => simulate::run(args, output).await,
        Command::Audit(args) => audit::run(args, output).await,
        Command::Token(args) => token::run(args, output).map(|()| true),
        Command::Completions { shell } => {
            ensure!(!output.json, "completions are a script for a shell, not JSON: leave out -o json");
            cli::print_completions(shell);
            Ok(true)
        }
    }
}

fn could_not(error: &anyhow::Error, output: Output) -> ExitCode {
    eprintln!("stampede: {error:#}");
    if output.json {
        output::print_json_error(&format!("{error:#}"));
    }
    ExitCode::from(2)
}
