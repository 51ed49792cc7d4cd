//! The HTTP server: HTTP/1.1 and HTTP/2 without TLS on one port, with a bound on everything a client can hold on to.
//!
//! It is independent of what is served.

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

/// Most connections at a time; further ones wait in the backlog of the listener.
const MAX_CONNECTIONS: usize = 16_384;
/// Longest wait for the head of the next request; so long may a connection also be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
const HEAD_LIMIT: usize = 32 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at a time on one HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 1_024;
/// Interval and time-out of HTTP/2 pings.
const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Pause after a connection could not be accepted, which is when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then waits until every request under way is answered. The caller bounds that wait.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let server = Arc::new(builder());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while let Some((socket, place)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        // Answers are small and written at once; waiting for more to send would only delay them.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(error.cause = %error, "connection lost before its first request");
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection(TokioIo::new(socket), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(error.cause = %error, "connection broke off");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_LIMIT).expect("a few KiB"))
        .keep_alive_interval(HTTP2_PING.0)
        .keep_alive_timeout(HTTP2_PING.1);
    builder
}

/// The next connection that there is a place for. A failure of one is none of the server's.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return (socket, place),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(error.cause = %error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
