//! The baselines that `cargo xtask bench gateway` measures the gateway beside: a gRPC handler with nothing around it,
//! one within the layers of a service, an HTTP handler, and a hop from HTTP to gRPC that does nothing else. Each runs
//! on one thread.

mod backend;
mod handler;
mod hop;
mod service;

use anyhow::Context;
use clap::Parser;
use std::{net::SocketAddr, process::ExitCode};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A part of the laboratory.
#[derive(Debug, Parser)]
enum Part {
    /// The gRPC handler
    Backend {
        /// Address to serve on
        listen: SocketAddr,
    },
    /// The gRPC handler within the layers of a service
    Service(Box<service::Config>),
    /// The HTTP handler, which reads a body and answers
    Handler {
        /// Address to serve on
        listen: SocketAddr,
    },
    /// The hop from HTTP to gRPC
    Hop {
        /// Address to serve on
        listen: SocketAddr,
        /// The gRPC handler
        backend: SocketAddr,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Part::parse() {
        Part::Service(config) => Ok(service::serve(*config)),
        part => on_one_thread(part),
    }
}

fn on_one_thread(part: Part) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move {
        match part {
            Part::Backend { listen } => backend::serve(bind(listen).await?).await,
            Part::Service(_) => anyhow::bail!("a service has a runtime of its own"),
            Part::Handler { listen } => handler::serve(bind(listen).await?).await,
            Part::Hop { listen, backend } => hop::serve(bind(listen).await?, backend).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
