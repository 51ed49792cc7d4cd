//! Clients that hold on to what they have of a server, or go against its protocol: each limit ends them, and counts
//! them.

use super::{
    HttpBounds,
    tests::{DRAIN, measure, start},
};
use crate::{Workers, for_tests::Process};
use axum::{Router, routing::get};
use futures_util::future::join_all;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// A deadline that no test reaches.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the kernels of both sides buffer.
const LARGE_BYTES: usize = 64 << 20;
/// Requests that are answered at once, never, and with so many bytes.
const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const NEVER: &[u8] = b"GET /never HTTP/1.1\r\nHost: test\r\n\r\n";
const LARGE: &[u8] = b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_vanishes_without_a_word_is_given_up_and_counted() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "vanishing", vanish_deadline: Duration::from_secs(2), ..HttpBounds::default() };
    let (mut client, _serving) = client_within(bounds, &process.stop).await;
    client.write_all(WHOLE).await.unwrap();
    assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
    crate::for_tests::vanish(&client);
    // An idle client would be kept for a minute.
    until_cut(&process, "vanishing", "vanished").await;
}

#[tokio::test]
async fn each_limit_counts_the_connection_that_it_ends() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let (soon, usual) = (Duration::from_millis(300), HttpBounds::default);
    let endless_head = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 40 << 10]].concat();
    let attacks = [
        ("head", HttpBounds { head_deadline: soon, ..usual() }, b"GET /".to_vec()),
        ("head_size", usual(), endless_head),
        ("idle", HttpBounds { idle_deadline: soon, ..usual() }, WHOLE.to_vec()),
        ("age", HttpBounds { max_age: soon, ..usual() }, WHOLE.to_vec()),
        // They answer no ping, and so they never leave.
        ("leaving", HttpBounds { max_age: soon, leave_deadline: soon, ..usual() }, over_http2("/")),
        ("ping", HttpBounds { ping_interval: soon, ..usual() }, over_http2("/never")),
        ("stalled", usual().with_stall_deadline(soon), over_http2("/large")),
        ("flood", usual(), cancelled_requests(100)),
    ];
    let process = &process;
    let counted = attacks.map(|(bound, bounds, said)| async move {
        let (mut client, _serving) = client_within(HttpBounds { listener: bound, ..bounds }, &process.stop).await;
        client.write_all(&said).await.unwrap();
        until_cut(process, bound, bound).await;
    });
    join_all(counted).await;
}

#[tokio::test]
async fn a_connection_that_makes_room_and_a_newcomer_without_a_place_are_counted() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    for (bound, max_connections) in [("full", 1), ("address", 2)] {
        let usual = HttpBounds::default();
        let bounds = HttpBounds { listener: bound, max_connections, max_connections_of_address: 1, ..usual };
        let (client, _serving) = client_within(bounds, &process.stop).await;
        let _newcomer = another(&client).await;
        until_cut(&process, bound, bound).await;
    }
}

#[tokio::test]
async fn each_limit_has_its_series_before_it_ends_a_connection() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "unhurt", ..HttpBounds::default() };
    let (_client, _serving) = client_within(bounds, &process.stop).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bounds = HttpBounds { listener: "unhurt_grpc", ..HttpBounds::of_grpc() };
    let _incoming = super::http::incoming(listener, bounds, process.stop.clone());
    for (listener, bound) in [("unhurt", "address"), ("unhurt", "vanished"), ("unhurt_grpc", "stalled")] {
        let labels = [("listener", listener), ("bound", bound)];
        until_measured(&process, "http_server_cut_connections_total", &labels, 0).await;
    }
}

#[tokio::test]
async fn connections_are_measured_by_what_they_do() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "states", head_deadline: PATIENCE, ..HttpBounds::default() };
    let (silent, _serving) = client_within(bounds, &process.stop).await;
    let (mut idle, mut busy) = (another(&silent).await, another(&silent).await);
    idle.write_all(WHOLE).await.unwrap();
    busy.write_all(NEVER).await.unwrap();
    let all_are = async |count| {
        for state in ["head", "idle", "busy"] {
            let labels = [("listener", "states"), ("state", state)];
            until_measured(&process, "http_server_open_connections", &labels, count).await;
        }
    };
    all_are(1).await;
    drop((silent, idle, busy));
    all_are(0).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_measured_over_both_versions() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "unread", ping_interval: PATIENCE, ..HttpBounds::default() };
    let (mut http1, _serving) = client_within(bounds.with_stall_deadline(PATIENCE), &process.stop).await;
    let mut http2 = another(&http1).await;
    let are_unread = async |count| {
        until_measured(&process, "http_server_unread_answers", &[("listener", "unread")], count).await;
    };
    http1.write_all(LARGE).await.unwrap();
    are_unread(1).await;
    http2.write_all(&over_http2("/large")).await.unwrap();
    are_unread(2).await;
    drop((http1, http2));
    are_unread(0).await;
}

/// Serves within these bounds a large answer, and one that never comes. Returns a client.
async fn client_within(bounds: HttpBounds, stop: &CancellationToken) -> (TcpStream, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let router = Router::new()
        .route("/large", get(async || vec![0_u8; LARGE_BYTES]))
        .route("/never", get(std::future::pending::<()>));
    let serving = super::http::serve(listener, router, bounds, None, stop.clone());
    (client, AbortOnDropHandle::new(tokio::spawn(serving)))
}

/// Connects another client to the server of this one.
async fn another(client: &TcpStream) -> TcpStream {
    TcpStream::connect(client.peer_addr().unwrap()).await.unwrap()
}

/// Waits until a connection of this listener is counted as closed by this bound.
async fn until_cut(process: &Process, listener: &str, bound: &str) {
    let labels = [("listener", listener), ("bound", bound)];
    until_measured(process, "http_server_cut_connections_total", &labels, 1).await;
}

/// Waits until a metric has this value where it has these labels.
async fn until_measured(process: &Process, metric: &str, labels: &[(&str, &str)], value: u64) {
    let (start, end) = (format!("{metric}{{"), format!(" {value}"));
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let is_it = |line: &str| {
        line.starts_with(&start) && line.ends_with(&end) && labels.iter().all(|label| line.contains(label.as_str()))
    };
    let give_up = Instant::now() + Duration::from_secs(30);
    while !process.get("/metrics").await.lines().any(is_it) {
        assert!(Instant::now() < give_up, "{metric} {labels:?} never is {value}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The first bytes of an HTTP/2 client: the preface, and settings.
fn first_bytes() -> Vec<u8> {
    let settings = 4;
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], frame(settings, 0, 0, &[]).as_slice()].concat()
}

/// The first bytes of an HTTP/2 client that cancels each of its requests at once.
fn cancelled_requests(count: u32) -> Vec<u8> {
    let (head, reset) = (head("/"), 3);
    let mut bytes = first_bytes();
    for number in 0..count {
        let stream = number * 2 + 1;
        bytes.extend(frame(HEADERS, WHOLE_REQUEST, stream, &head));
        // CANCEL.
        bytes.extend(frame(reset, 0, stream, &[0, 0, 0, 8]));
    }
    bytes
}

/// The first bytes of an HTTP/2 client that sends one request.
fn over_http2(path: &str) -> Vec<u8> {
    [first_bytes(), frame(HEADERS, WHOLE_REQUEST, 1, &head(path))].concat()
}

/// The kind of a frame with the head of a request.
const HEADERS: u8 = 1;
/// Its flags where it is whole: `END_HEADERS` and `END_STREAM`.
const WHOLE_REQUEST: u8 = 5;

/// The head of a request: GET and http of the static table, and a literal path and authority (RFC 7541, A).
fn head(path: &str) -> Vec<u8> {
    let length = [u8::try_from(path.len()).unwrap()];
    [&b"\x82\x86\x04"[..], &length, path.as_bytes(), b"\x01\x04test"].concat()
}

/// Begins a request of whose body nothing is read, and sends more of the body. Returns the answer.
async fn sends_a_body_that_is_not_read() -> io::Result<String> {
    let stop = CancellationToken::new();
    let (mut client, _serving) = client_within(HttpBounds::default(), &stop).await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n").await?;
    sends_on(&mut client, &[0; 1024]).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Lets a server ask its client to leave over HTTP/2, and sends more once it has ended the connection.
async fn sends_on_to_a_server_that_leaves() -> io::Result<()> {
    let stop = CancellationToken::new();
    let (mut client, _serving) = client_within(HttpBounds::default(), &stop).await;
    client.write_all(&first_bytes()).await?;
    client.readable().await?;
    stop.cancel();
    answers_pings_until_the_end(&mut client).await?;
    sends_on(&mut client, &frame(PING, 0, 0, &[0; 8])).await
}

/// The kind of a frame that the other side answers.
const PING: u8 = 6;

/// Answers the pings of a server over HTTP/2 until it ends the connection.
async fn answers_pings_until_the_end(client: &mut TcpStream) -> io::Result<()> {
    let (mut head, ack) = ([0; 9], 1);
    while client.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        client.read_exact(&mut payload).await?;
        if (head[3], head[4]) == (PING, 0) {
            client.write_all(&frame(PING, ack, 0, &payload)).await?;
        }
    }
    Ok(())
}

/// Sends this several times. Fails if the server has closed its socket.
async fn sends_on(client: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for _ in 0..5 {
        client.write_all(bytes).await?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Tries again what a machine that stands still may break: it is longer than a server waits.
async fn tried<T, F: AsyncFn() -> io::Result<T>>(what: F) -> T {
    for _ in 0..3 {
        if let Ok(done) = what().await {
            return done;
        }
    }
    what().await.unwrap()
}

#[tokio::test]
async fn who_still_sends_their_body_reads_the_whole_refusal() {
    let answer = tried(sends_a_body_that_is_not_read).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
}

#[tokio::test]
async fn who_still_sends_when_the_server_leaves_is_not_reset() {
    tried(sends_on_to_a_server_that_leaves).await;
}
