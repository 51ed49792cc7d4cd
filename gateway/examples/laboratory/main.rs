//! The baselines that `cargo xtask bench gateway` measures the gateway beside: a gRPC handler with nothing around it,
//! an HTTP handler, and a hop from HTTP to gRPC that does nothing else. Each runs on one thread.

mod backend;
mod handler;
mod hop;

use anyhow::Context;
use clap::Parser;
use std::net::SocketAddr;
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

fn main() -> anyhow::Result<()> {
    let part = Part::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move {
        match part {
            Part::Backend { listen } => backend::serve(bind(listen).await?).await,
            Part::Handler { listen } => handler::serve(bind(listen).await?).await,
            Part::Hop { listen, backend } => hop::serve(bind(listen).await?, backend).await,
        }
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
