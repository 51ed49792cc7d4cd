//! The operator's commands of `stampede`: prepare a mesh, simulate a sale against it, audit its promises, decide on its
//! messages and its payments.
//!
//! Results go to stdout, logs and progress to stderr. Simulating calls only the gateway, as buyers do; auditing reads
//! every schema, Redis and Kafka, and changes nothing. The commands for messages and payments record decisions on dead
//! letters and anomalies, which their services then carry out.
//!
//! `stampede audit` is one of them; `stampede help` lists all, and the help of each has an example.

mod acknowledged;
pub mod audit;
mod command;
mod healthcheck;
mod kafka;
mod messages;
mod output;
mod payments;
mod prepare;
mod secrets;
mod seed;
pub mod simulate;
mod token;

pub use command::Command;
pub use output::{Format, print_json_error};

use anyhow::Context;
use output::Output;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command. Exit code 0: success; 1: a promise is broken, the sale had anomalies, the process is not ready, or a
/// decision on messages or payments is not carried out; 2: the command failed; 143 and 130: it was stopped by SIGTERM
/// or SIGINT. With [`Format::Json`] the error of a 2 is on stdout too, as `{"error": {"message": ...}}`.
pub fn run(command: Command, format: Format) -> ExitCode {
    let output = Output::new(format);
    output::init_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report_error(&error.into(), output),
    };
    match runtime.block_on(until_signalled(dispatch(command, output))) {
        Ok(code) => code,
        Err(error) => report_error(&error, output),
    }
}

async fn dispatch(command: Command, output: Output) -> anyhow::Result<bool> {
    match command {
        Command::Prepare(args) => prepare::run(args, output).await.map(|()| true),
        Command::Simulate(args) => simulate::run(args, output).await,
        Command::Audit(args) => audit::run(args, output).await,
        Command::Messages(args) => messages::run(args, output).await,
        Command::Payments(args) => payments::run(args, output).await,
        Command::Token(args) => token::run(&args, output).map(|()| true),
        Command::Seed(args) => seed::run(args, output).await.map(|()| true),
        Command::Healthcheck(args) => healthcheck::run(args, output).await,
        Command::Secrets(args) => secrets::run(&args, output).map(|()| true),
    }
}

/// Cancels the work at SIGTERM and SIGINT. PID 1 of a container ignores both without a handler.
async fn until_signalled(work: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    tokio::select! {
        done = work => done.map(|good| if good { ExitCode::SUCCESS } else { ExitCode::from(1) }),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
    }
}

fn report_error(error: &anyhow::Error, output: Output) -> ExitCode {
    eprintln!("stampede: {error:#}");
    if output.json {
        output::print_json_error(&format!("{error:#}"));
    }
    ExitCode::from(2)
}
