//! The HTTP server: HTTP/1.1 and HTTP/2 on one port, in TLS if it has a certificate, with a limit on every resource
//! that a client can hold.
//!
//! Independent of the application. All limits are in `bounds`; connections that exceed one are counted by its name.

mod bounds;
mod connections;
mod incoming;
mod life;
mod linger;
mod metrics;
mod socket;
mod stall;
mod tls;

pub use bounds::HttpBounds;
pub(crate) use incoming::incoming;
pub use tls::{Tls, TlsFiles};

use self::{
    connections::{Connections, Permit},
    life::{Exchange, Verdict},
    metrics::Metrics,
    socket::Socket,
    stall::{StreamTasks, Watched},
};
use crate::peer::Peer;
use axum::{Router, body::Body};
use hyper::{Request, Response, StatusCode, Version, body::Incoming, header::HOST, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use stampede_status::{Problem, Reason};
use std::{
    convert::Infallible,
    error::Error,
    io, iter,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::coop::unconstrained,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tower::ServiceExt;

/// Pause after a failed accept, which means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Range of Retry-After, in seconds, for a connection over the limit. It is random, so that clients do not return
/// together.
const FULL_RETRY_S: RangeInclusive<u8> = 1..=3;

/// Serves until `stop`, then waits until every request under way is answered. The caller bounds that wait. Serves TLS
/// only, if `tls` has a certificate.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: HttpBounds,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    let tls = tls.map(Arc::new);
    let _reload = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.follow().await })));
    let server = Arc::new(Server::new(router, bounds, tls));
    let tasks = TaskTracker::new();
    while let Some((socket, address)) = stop.run_until_cancelled(accept(&listener)).await {
        if let Some(permit) = server.admit(&socket, address.ip()) {
            tasks.spawn(Arc::clone(&server).run_connection(socket, address.ip(), permit, stop.child_token()));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// State that all connections share.
struct Server {
    router: Router,
    protocols: auto::Builder<StreamTasks>,
    connections: Arc<Connections>,
    bounds: Arc<HttpBounds>,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
}

impl Server {
    fn new(router: Router, bounds: HttpBounds, tls: Option<Arc<Tls>>) -> Server {
        let bounds = within_open_files(bounds);
        let (metrics, bounds) = (Metrics::of_http(bounds.listener), Arc::new(bounds));
        Server {
            router,
            protocols: protocols(&bounds, metrics.clone()),
            connections: Connections::new(Arc::clone(&bounds)),
            tls,
            metrics,
            bounds,
        }
    }

    /// Returns a permit for the connection. Without a free one, sends an answer that says so and returns `None`.
    fn admit(&self, socket: &TcpStream, address: IpAddr) -> Option<Permit> {
        if let Err(error) = socket::prepare(socket, self.bounds.vanish_deadline) {
            tracing::debug!(error.cause = %error, "connection lost before its first request");
            return None;
        }
        match self.connections.admit(address) {
            Ok(permit) => Some(permit),
            Err(bound) => {
                self.metrics.count_cut(bound);
                if self.tls.is_none() {
                    socket::send_now(socket, too_many_connections(rand::random_range(FULL_RETRY_S)).as_bytes());
                }
                None
            }
        }
    }

    /// Answers the requests of one connection until it ends.
    async fn run_connection(
        self: Arc<Self>,
        socket: TcpStream,
        address: IpAddr,
        permit: Permit,
        stop: CancellationToken,
    ) {
        let life = Arc::clone(&permit.life);
        let socket = Socket::new(socket, life, self.bounds.stall_deadline, self.metrics.clone());
        match &self.tls {
            None => self.serve_http(socket, address, &permit, &stop).await,
            Some(tls) => {
                if let Some(socket) = self.handshake(tls, socket, &permit, &stop).await {
                    self.serve_http(socket, address, &permit, &stop).await;
                }
            }
        }
    }

    /// Makes the TLS handshake, within the deadline of a request head.
    async fn handshake(
        &self,
        tls: &Tls,
        socket: Socket,
        permit: &Permit,
        stop: &CancellationToken,
    ) -> Option<TlsStream<Socket>> {
        let outcome = tokio::select! {
            outcome = timeout(self.bounds.head_deadline, tls.accept(socket)) => outcome,
            () = permit.life.cut.cancelled() => {
                self.metrics.count_cut("full");
                return None;
            }
            () = stop.cancelled() => return None,
        };
        match outcome {
            Ok(Ok(socket)) => Some(socket),
            Ok(Err(error)) => {
                tracing::debug!(error.cause = %error, "no connection in TLS");
                None
            }
            Err(_) => {
                self.metrics.count_cut("head");
                None
            }
        }
    }

    /// Answers the requests on `io`.
    async fn serve_http<I>(&self, io: I, address: IpAddr, permit: &Permit, stop: &CancellationToken)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, life) = (TokioIo::new(io), Arc::clone(&permit.life));
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let exchange = life.begin_request(request.version() == Version::HTTP_2);
            answer(router.clone(), Peer(address), exchange, request)
        });
        let connection = self.protocols.serve_connection(io, service);
        self.enforce_bounds(connection, permit, stop).await;
    }

    /// Runs a connection, and ends it when it exceeds a deadline or its age.
    async fn enforce_bounds<C>(&self, connection: C, permit: &Permit, stop: &CancellationToken)
    where
        C: GracefulConnection<Error = Box<dyn Error + Send + Sync>>,
    {
        let mut connection = pin!(connection);
        let mut leaving = None;
        // Jittered, so that connections that began together do not end together.
        let retires_at = Instant::now() + self.bounds.max_age.mul_f64(rand::random_range(0.9..=1.0));
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let exceeded = tokio::select! {
                // Biased: a head that arrived while this process was stalled is read before its deadline is checked.
                biased;
                // It comes first: no request is begun that would be cut off at once.
                () = permit.life.cut.cancelled() => return self.metrics.count_cut("full"),
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        if let Some(bound) = exceeded_limit(&*error) {
                            self.metrics.count_cut(bound);
                        }
                        tracing::debug!(error.cause = %error, "connection broke off");
                    }
                    return;
                }
                () = stop.cancelled(), if leaving.is_none() => None,
                // A timer needs some of the budget of a poll, of which a connection that is flooded leaves nothing.
                () = unconstrained(timer.as_mut()) => match permit.life.judge(&self.bounds, leaving, retires_at) {
                    Verdict::Wait(until) => {
                        timer.as_mut().reset(until);
                        continue;
                    }
                    Verdict::Cut(bound) => return self.metrics.count_cut(bound),
                    Verdict::Leave(bound) => Some(bound),
                },
            };
            if let Some(bound) = exceeded {
                self.metrics.count_cut(bound);
            }
            permit.life.leave();
            connection.as_mut().graceful_shutdown();
            leaving = Some(Instant::now());
            timer.as_mut().reset(Instant::now() + self.bounds.leave_deadline);
        }
    }
}

/// Returns the limit for which the libraries of HTTP ended a connection.
fn exceeded_limit(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut causes = iter::successors(Some(error), |&error| error.source());
    causes.find_map(|cause| match (cause.downcast_ref::<hyper::Error>(), cause.downcast_ref::<h2::Error>()) {
        (Some(error), _) if error.is_parse_too_large() => Some("head_size"),
        // hyper's own time-out for the heads of HTTP/1 is off, so it is the one of pings.
        (Some(error), _) if error.is_timeout() => Some("ping"),
        (_, Some(error)) if is_flood(error) => Some("flood"),
        _ => None,
    })
}

/// Returns whether a connection was closed because of a flood of frames, such as requests that are cancelled before
/// they are begun. The library of HTTP/2 limits these.
fn is_flood(error: &h2::Error) -> bool {
    error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// Returns the answer to a connection over the limit, with its Retry-After.
fn too_many_connections(retry_s: u8) -> String {
    let problem = Problem::new(Reason::Overloaded, "too many connections are open");
    let problem = problem.retry_after(Duration::from_secs(retry_s.into())).to_json("");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: {retry_s}\r\n\
         connection: close\r\n\r\n{problem}"
    )
}

/// Keeps an eighth of the open files of the process for other uses: without a free one no connection can be refused.
/// The limit of one address shrinks in proportion.
fn within_open_files(bounds: HttpBounds) -> HttpBounds {
    let Ok((files, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) else { return bounds };
    let room = usize::try_from(files / 8 * 7).unwrap_or(usize::MAX);
    within(room, bounds)
}

fn within(room: usize, bounds: HttpBounds) -> HttpBounds {
    let (max, of_address) = (bounds.max_connections, bounds.max_connections_of_address);
    if max <= room {
        return bounds;
    }
    let of_address = (of_address.saturating_mul(room) / max).max(1);
    HttpBounds { max_connections: room, max_connections_of_address: of_address, ..bounds }
}

fn protocols(bounds: &HttpBounds, metrics: Metrics) -> auto::Builder<StreamTasks> {
    let mut builder = auto::Builder::new(StreamTasks { stall_deadline: bounds.stall_deadline, metrics });
    // The deadline of HTTP/1 heads is enforced by `life`, which also covers connections without a first byte.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None::<Duration>)
        .max_buf_size(bounds::HEAD_LIMIT)
        .max_headers(bounds::MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_http2_streams)
        .max_header_list_size(u32::try_from(bounds::HEAD_LIMIT).expect("a few KiB"))
        .initial_stream_window_size(bounds::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(bounds::CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(bounds::SEND_BUFFER_BYTES)
        .keep_alive_interval(bounds.ping_interval)
        .keep_alive_timeout(bounds.ping_interval);
    builder
}

/// Answers one request, with its peer as an extension.
async fn answer(
    router: Router,
    peer: Peer,
    exchange: Exchange,
    mut request: Request<Incoming>,
) -> Result<Response<Watched>, Infallible> {
    let response = if has_host(&request) {
        request.extensions_mut().insert(peer);
        router.oneshot(request).await?
    } else {
        let mut refusal = Response::new(Body::empty());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        refusal
    };
    Ok(response.map(|body| Watched::new(body, exchange)))
}

/// Returns whether a request has one Host, where it must (RFC 9112 3.2). Two are refused: a proxy in front may have
/// used the other one.
fn has_host(request: &Request<Incoming>) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}

/// Accepts the next connection. Skips errors of single connections.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio::{task::yield_now, time::advance};

    #[tokio::test(start_paused = true)]
    async fn a_head_that_arrived_while_this_process_stood_still_is_answered() {
        // Were it left to chance what is looked at first, most of these would be cut.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, address) = listener.accept().await.unwrap();
            let server = Arc::new(Server::new(Router::new(), HttpBounds::default(), None));
            let permit = server.admit(&socket, address.ip()).unwrap();
            let head_deadline = server.bounds.head_deadline;
            let serving = tokio::spawn(server.run_connection(socket, address.ip(), permit, CancellationToken::new()));
            // Now it waits for a head.
            yield_now().await;
            client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
            advance(head_deadline * 2).await;
            serving.await.unwrap();
            let mut answer = String::new();
            // What is cut with a head that was not read is reset.
            let _ = client.read_to_string(&mut answer);
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
        }
    }

    #[test]
    fn who_gets_no_place_is_told_by_a_problem_when_to_come_again() {
        for retry_s in FULL_RETRY_S {
            let answer = too_many_connections(retry_s);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.split("\r\n").any(|line| line == format!("retry-after: {retry_s}")), "{head}");
            assert!(body.contains(&format!("\"retry_after_ms\":{retry_s}000")), "{body}");
            assert!(body.contains("\"reason\":\"OVERLOADED\""), "{body}");
        }
        assert!(FULL_RETRY_S.count() > 1, "not all come again at once");
    }

    #[test]
    fn with_few_open_files_one_address_has_the_same_part_of_fewer_connections() {
        let bounds = || HttpBounds { max_connections: 1_000, max_connections_of_address: 120, ..HttpBounds::default() };
        let fewer = within(100, bounds());
        assert_eq!((fewer.max_connections, fewer.max_connections_of_address), (100, 12));
        let same = within(1_000, bounds());
        assert_eq!((same.max_connections, same.max_connections_of_address), (1_000, 120));
    }
}
