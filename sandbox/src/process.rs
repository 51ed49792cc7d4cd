//! The life of the process: logs, signals, the port. The server is built elsewhere.

use crate::{config::Config, server::serve};
use std::process::ExitCode;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Runs the sandbox until SIGTERM or SIGINT. Returns 0 after an orderly stop; 1, with a line in the log, if it could
/// not start or its server failed.
pub fn run(config: Config) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error.cause = format!("{error:#}"), "stampede-sandbox stops");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_until_signalled(config))
}

async fn serve_until_signalled(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    let listener = TcpListener::bind(config.listen_addr)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", config.listen_addr))?;
    serve(listener, config, stop).await
}
