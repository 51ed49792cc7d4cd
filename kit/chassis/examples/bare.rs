//! The smallest process there is: no services, one worker that fails on demand.

use clap::Parser;
use stampede_chassis::{CommonConfig, Grpc, HasCommon, Stage, Workers};
use stampede_vocab::Process;
use std::{process::ExitCode, time::Duration};
use tonic::service::Routes;

/// A process that serves nothing but its own health.
#[derive(Debug, Parser)]
struct Config {
    #[command(flatten)]
    common: CommonConfig,

    /// Refuse to start, with this as the reason.
    #[arg(long)]
    refuse: Option<String>,

    /// Never finish starting.
    #[arg(long)]
    hang: bool,

    /// Milliseconds that the worker takes to stop.
    #[arg(long, default_value_t = 0)]
    tidy_up_ms: u64,
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}

async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    workers.spawn(Stage::Relay, "tidy", async move |stop| {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_millis(config.tidy_up_ms)).await;
        if config.tidy_up_ms > 0 {
            tracing::info!("tidied up");
        }
        Ok(())
    });
    if let Some(reason) = config.refuse {
        anyhow::bail!(reason);
    }
    if config.hang {
        std::future::pending::<()>().await;
    }
    Ok(Grpc::new(Routes::default(), &[], &[]))
}

fn main() -> ExitCode {
    stampede_chassis::run(Process::Sandbox, Config::parse(), build)
}
