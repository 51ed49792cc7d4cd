//! Serves until it is stopped, then drains in order.
//!
//! The listeners and the stop are parameters, so that tests serve on port 0 what a process serves.

#[cfg(test)]
mod attacks;
pub(crate) mod http;
#[cfg(test)]
mod tests;

use anyhow::Context;
use axum::Router;
use stampede_vocab::backoff_within;
use std::time::Duration;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use self::http::{HttpBounds, Tls, TlsFiles};

use crate::{Admin, Grpc, Workers, app::App, health::Health, layers::Layered};

/// Most concurrent calls of a process, open streams not counted. At 10 s each they fit in memory, and they are far more
/// than the process can answer in time.
const MAX_CALLS: usize = 8192;

/// Most streams of a connection. The gateway has one connection to each replica for the calls of all buyers and one for
/// their watchers, so this limits its watchers.
const MAX_STREAMS: u32 = 65_536;

/// Resets that are not yet accepted. A crowd that leaves cancels calls by the hundred; over hyper's default of 20 the
/// connection that they share with all other calls would be closed.
const MAX_PENDING_RESETS: usize = 8192;

/// Windows that let one connection carry many small messages without waiting for updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Keep-alive: a connection is closed after the two together without an answer to a ping. Uncounted: tonic reports no
/// connection that it ends.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum age of a connection, less up to a half at random. It is closed once its calls are answered, so that callers
/// behind a layer-4 load balancer find new replicas. Open streams stay on it. Tests wait less.
const CONNECTION_AGE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(20) };

/// Longest wait for the HTTP/2 connection preface. Tests wait less.
const PREFACE_DEADLINE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(10) };

/// Time in which callers see NOT_SERVING before connections close: a probe and its answer.
const LAME_DUCK: Duration = Duration::from_millis(350);

/// Serves `app` on `listener` until `stop` is cancelled or a worker fails; then drains, in little more than `drain`.
/// Registers reflection with `admin`, if given, which serves until the drain is over.
///
/// Fails if the listener does, or with the failure of the worker.
pub async fn serve_on(
    listener: TcpListener,
    admin: Option<Admin>,
    app: impl Into<App>,
    workers: Workers,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let app = app.into();
    let reflection = app.contract().reflection().context("the contract cannot be reflected")?;
    if let Some(admin) = &admin {
        admin.reflect(reflection.clone());
    }
    let close = CancellationToken::new();
    let mut server = tokio::spawn(serve(listener, app, reflection, workers.clone(), close.clone()));
    let outcome = tokio::select! {
        served = &mut server => return served.context("the server panicked")?.context("the server stopped"),
        () = stop.cancelled() => Ok(()),
        failure = workers.failed() => Err(failure),
    };
    let deadline = Instant::now() + drain;
    workers.draining().cancel();
    let calls = async {
        sleep(LAME_DUCK).await;
        close.cancel();
        (&mut server).await
    };
    if timeout_at(deadline, calls).await.is_err() {
        tracing::warn!(drain.timeout_ms = drain.as_millis(), "calls under way did not end in time and are cut");
        server.abort();
    }
    workers.stop_all(deadline).await;
    outcome
}

async fn serve(
    listener: TcpListener,
    app: App,
    reflection: Router,
    workers: Workers,
    close: CancellationToken,
) -> anyhow::Result<()> {
    match app {
        App::Grpc(grpc) => serve_grpc(listener, grpc, reflection, workers, close).await,
        App::Http(http) => {
            let (router, bounds, tls) = http.into_parts();
            http::serve(listener, router, bounds, tls, close).await;
            Ok(())
        }
    }
}

async fn serve_grpc(
    listener: TcpListener,
    grpc: Grpc,
    reflection: Router,
    workers: Workers,
    close: CancellationToken,
) -> anyhow::Result<()> {
    let health = Health::of(grpc.services());
    let (routes, guard) = grpc.into_parts(&health, reflection);
    let draining = workers.draining();
    let _health = health.follow(workers).await;
    let calls = Layered::new(routes, guard, MAX_CALLS, draining);
    let bounds = HttpBounds { head_deadline: PREFACE_DEADLINE, ..HttpBounds::of_grpc() };
    // A message is at most 4 MiB, which is what tonic decodes unless a service says otherwise.
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        // Jittered once for each process, so that processes that started together do not close all connections
        // together.
        .max_connection_age(backoff_within(CONNECTION_AGE, CONNECTION_AGE, 0))
        .serve_with_incoming_shutdown(calls, http::incoming(listener, bounds, close.clone()), close.cancelled())
        .await
        .context("gRPC")
}
