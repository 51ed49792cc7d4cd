//! A process as seen by its callers, its operator and its workers.

use super::*;
use crate::{
    MeshChannel, Stage,
    for_tests::{Process, call, once_within, open_watch, reflected_services},
    telemetry::install_metrics,
};
use ::http::Request;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_sdk::Resource;
use stampede_status::{Problem, Reason};
use std::{
    io,
    sync::{Arc, Mutex, Once},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const DRAIN: Duration = Duration::from_secs(5);

async fn start(workers: &Workers, drain: Duration) -> (Process, Channel) {
    let process = Process::start(1, workers.clone(), drain).await;
    let channel = Endpoint::from_shared(process.url()).unwrap().connect().await.unwrap();
    (process, channel)
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().get_ref().status()
}

/// Waits up to ten seconds for a condition.
async fn soon<F: AsyncFn() -> bool>(what: F) {
    for _ in 0..1_000 {
        if what().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come true");
}

#[tokio::test]
async fn health_and_readiness_follow_the_gates() {
    let workers = Workers::new();
    let gate = workers.gate("redis");
    let (process, channel) = start(&workers, DRAIN).await;
    assert_eq!(health(&channel, "").await, ServingStatus::NotServing);
    assert!(process.get("/readyz").await.contains("503"));
    gate.open();
    for service in ["", "test.Calls"] {
        soon(async || health(&channel, service).await == ServingStatus::Serving).await;
    }
    let page = process.get("/readyz").await;
    assert!(page.contains("200 OK") && page.contains("redis: ready"), "{page}");
    gate.close();
    soon(async || health(&channel, "test.Calls").await == ServingStatus::NotServing).await;
    assert!(process.get("/healthz").await.contains("200 OK"), "not ready is still alive");
}

#[tokio::test]
async fn the_admin_port_answers_over_grpc_too() {
    let workers = Workers::new();
    let gate = workers.gate("redis");
    let (process, _channel) = start(&workers, DRAIN).await;
    let admin = Endpoint::from_shared(format!("http://{}", process.admin)).unwrap().connect().await.unwrap();
    assert_eq!(health(&admin, "").await, ServingStatus::NotServing);
    gate.open();
    soon(async || health(&admin, "").await == ServingStatus::Serving).await;
    assert_eq!(
        reflected_services(admin).await.unwrap(),
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "test.Calls"
        ]
    );
}

#[tokio::test]
async fn tools_that_ask_for_the_older_reflection_are_answered_on_both_ports() {
    let (process, channel) = start(&Workers::new(), DRAIN).await;
    let admin = Endpoint::from_shared(format!("http://{}", process.admin)).unwrap().connect().await.unwrap();
    for port in [channel, admin] {
        let wanted = MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
        let requests = futures_util::stream::iter([request]);
        let mut answers =
            ServerReflectionClient::new(port).server_reflection_info(requests).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn the_admin_port_answers_until_the_last_worker_has_stopped() {
    let workers = Workers::new();
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let (stopping, mut stopped) = tokio::sync::oneshot::channel();
    workers.spawn(Stage::Relay, "relay", |stop| async move {
        stop.cancelled().await;
        stopping.send(()).unwrap();
        held.await.unwrap();
        Ok(())
    });
    let (process, _channel) = start(&workers, DRAIN).await;
    let admin = Endpoint::from_shared(format!("http://{}", process.admin)).unwrap().connect().await.unwrap();
    process.stop.cancel();
    (&mut stopped).await.unwrap();
    assert_eq!(health(&admin, "").await, ServingStatus::NotServing);
    assert!(process.get("/readyz").await.contains("draining"));
    release.send(()).unwrap();
    process.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_served_is_unavailable_to_reflection_until_it_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let workers = Workers::new();
    let _start = workers.gate("start");
    let _admin = Admin::spawn(listener, workers);
    let admin = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    assert_eq!(health(&admin, "").await, ServingStatus::NotServing);
    assert_eq!(reflected_services(admin).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_call_is_answered_and_a_panic_is_internal() {
    let (_process, channel) = start(&Workers::new(), DRAIN).await;
    assert_eq!(call(channel.clone(), "/test.Calls/Number").await.unwrap(), 1);
    let refused = call(channel.clone(), "/test.Calls/Panic").await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(call(channel, "/test.Calls/Number").await.unwrap(), 1, "the connection lives on");
}

/// Sends a call byte by byte, as clients in other languages may, and returns the code of the answer. (A tonic client
/// would apply its own timeout, and send only valid messages.)
async fn code_of(process: &Process, method: &str, timeout: &str, message: &'static [u8]) -> String {
    let connection = TokioIo::new(TcpStream::connect(process.address).await.unwrap());
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), connection).await.unwrap();
    tokio::spawn(driver);
    let request = Request::post(format!("{}/test.Calls/{method}", process.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::new(bytes::Bytes::from_static(message)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    answer.headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_no_handler_sees_is_refused_with_a_reason_too() {
    let (process, channel) = start(&Workers::new(), DRAIN).await;
    for path in ["/test.Calls/MadeUp", "/no.such.Service/AtAll"] {
        let refused = call(channel.clone(), path).await.unwrap_err();
        assert!(!refused.details().is_empty(), "{path}: {refused:?}");
        assert_eq!(Problem::from_status(&refused).reason(), Reason::MethodNotAllowed, "{path}");
    }
    // A frame of two bytes that are no message.
    assert_eq!(code_of(&process, "Number", "1S", &[0, 0, 0, 0, 2, 0xff, 0xff]).await, "3", "3 is INVALID_ARGUMENT");
    assert_eq!(health(&channel, "").await, ServingStatus::Serving);
}

#[tokio::test]
async fn a_late_call_ends_as_deadline_exceeded() {
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let timeouts: Vec<String> = (1..40).map(|n| format!("{}u", n * 1_370)).collect();
    let codes = join_all(timeouts.iter().map(|timeout| code_of(&process, "Never", timeout, &[0; 5]))).await;
    assert_eq!(codes, vec!["4"; timeouts.len()], "4 is DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn calls_then_consumers_then_relays_finish_and_in_that_order() {
    let workers = Workers::new();
    let done = Arc::new(Mutex::new(Vec::new()));
    for (stage, name) in [(Stage::Relay, "relay"), (Stage::Consumer, "consumer")] {
        let done = done.clone();
        workers.spawn(stage, name, |stop| async move {
            stop.cancelled().await;
            sleep(Duration::from_millis(50)).await;
            done.lock().unwrap().push(name);
            Ok(())
        });
    }
    let (process, channel) = start(&workers, DRAIN).await;
    let under_way = tokio::spawn(call(channel.clone(), "/test.Calls/Slow"));
    sleep(Duration::from_millis(100)).await;
    process.stop.cancel();
    soon(async || process.get("/readyz").await.contains("draining")).await;
    assert_eq!(health(&channel, "").await, ServingStatus::NotServing);
    assert!(done.lock().unwrap().is_empty());
    under_way.await.unwrap().unwrap();
    process.serving.await.unwrap().unwrap();
    assert_eq!(*done.lock().unwrap(), ["consumer", "relay"]);
}

#[tokio::test]
async fn a_stream_is_ended_and_does_not_hold_up_the_stop() {
    let (process, channel) = start(&Workers::new(), DRAIN).await;
    let mut stream = open_watch(channel).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    let stopped = Instant::now();
    process.stop.cancel();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    process.serving.await.unwrap().unwrap();
    assert!(stopped.elapsed() < DRAIN / 2);
}

#[tokio::test]
async fn an_old_connection_is_closed_once_its_calls_are_answered() {
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let connection = TokioIo::new(TcpStream::connect(process.address).await.unwrap());
    let (_sender, driver) =
        hyper::client::conn::http2::handshake::<_, _, Full<bytes::Bytes>>(TokioExecutor::new(), connection)
            .await
            .unwrap();
    let closed = tokio::time::timeout(CONNECTION_AGE + Duration::from_secs(10), driver).await;
    assert!(closed.is_ok(), "the server leaves it open");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_and_no_stream_fails_when_connections_grow_old() {
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let mesh = MeshChannel::connect(&[process.url()], "test");
    let mut stream = open_watch(mesh.clone()).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    let until = Instant::now() + 2 * CONNECTION_AGE;
    while Instant::now() < until {
        let calls = join_all((0..20).map(|_| call(mesh.clone(), "/test.Calls/Number"))).await;
        assert!(calls.iter().all(|answer| matches!(answer, Ok(1))), "{calls:?}");
    }
    let more = tokio::time::timeout(Duration::from_millis(100), stream.message()).await;
    assert!(more.is_err(), "the stream is still open and has nothing to say: {more:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_of_the_preface_is_closed() {
    let (process, channel) = start(&Workers::new(), DRAIN).await;
    let address = process.address;
    let beginnings: [&[u8]; 2] = [b"", b"PRI * HTTP/2.0\r\n"];
    let closed = beginnings.map(|beginning| async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        // The server's settings, and then an end or a reset.
        let _ = tokio::time::timeout(PREFACE_DEADLINE * 5, socket.read_to_end(&mut rest)).await.unwrap();
    });
    join_all(closed).await;
    assert_eq!(call(channel, "/test.Calls/Number").await.unwrap(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_say_for_which_host_it_is_is_refused() {
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    for (version, host, status) in [
        ("1.1", "", "400"),
        ("1.1", "Host: a\r\nHost: b\r\n", "400"),
        ("1.1", "Host: a\r\n", "200"),
        ("1.0", "", "200"),
    ] {
        let mut connection = TcpStream::connect(process.admin).await.unwrap();
        let request = format!("GET /healthz HTTP/{version}\r\n{host}Connection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut() {
    let stops_after = async || {
        let (process, channel) = start(&Workers::new(), Duration::from_millis(500)).await;
        let never = tokio::spawn(call(channel, "/test.Calls/Never"));
        sleep(Duration::from_millis(100)).await;
        let stopped = Instant::now();
        process.stop.cancel();
        process.serving.await.unwrap().unwrap();
        never.abort();
        stopped.elapsed()
    };
    once_within(Duration::from_secs(2), stops_after).await;
}

#[tokio::test]
async fn a_worker_that_fails_ends_the_process() {
    let workers = Workers::new();
    let (process, _channel) = start(&workers, DRAIN).await;
    workers.spawn(Stage::Consumer, "sweep", |_| async { anyhow::bail!("no such table") });
    let error = process.serving.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "worker sweep failed: no such table");
}

fn measure() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| drop(install_metrics("test", Resource::builder_empty().build()).unwrap()));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_vanishes_without_a_word_is_given_up_and_counted() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "vanishing", vanish_deadline: Duration::from_secs(2), ..HttpBounds::default() };
    let (mut client, _serving) = client_within(bounds, &process.stop).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
    crate::for_tests::vanish(&client);
    // An idle client would be kept for a minute.
    until_cut(&process, "vanishing", "vanished").await;
}

/// Serves nothing within these bounds. Returns a client.
async fn client_within(bounds: HttpBounds, stop: &CancellationToken) -> (TcpStream, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let serving = super::http::serve(listener, Router::new(), bounds, None, stop.clone());
    (client, AbortOnDropHandle::new(tokio::spawn(serving)))
}

/// Waits until a connection of this listener is counted as closed by this bound.
async fn until_cut(process: &Process, listener: &str, bound: &str) {
    let labels = [format!("listener=\"{listener}\""), format!("bound=\"{bound}\"")];
    let is_counted = |line: &str| {
        let of_all = line.starts_with("http_server_cut_connections_total{");
        of_all && labels.iter().all(|label| line.contains(label.as_str()))
    };
    let give_up = Instant::now() + Duration::from_secs(30);
    while !process.get("/metrics").await.lines().any(is_counted) {
        assert!(Instant::now() < give_up, "it still has its place");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_client_that_cancels_its_requests_before_they_are_begun_is_cut_and_counted() {
    measure();
    let (process, _channel) = start(&Workers::new(), DRAIN).await;
    let bounds = HttpBounds { listener: "flooded", ..HttpBounds::default() };
    let (mut client, _serving) = client_within(bounds, &process.stop).await;
    client.write_all(&cancelled_requests(100)).await.unwrap();
    until_cut(&process, "flooded", "flood").await;
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
    // GET, http and / of the static table, and a literal authority (RFC 7541, A).
    let head = b"\x82\x86\x84\x01\x04test";
    let (headers, reset) = (1, 3);
    let mut bytes = first_bytes();
    for number in 0..count {
        let stream = number * 2 + 1;
        // END_HEADERS and END_STREAM; then CANCEL.
        bytes.extend(frame(headers, 5, stream, head));
        bytes.extend(frame(reset, 0, stream, &[0, 0, 0, 8]));
    }
    bytes
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

#[tokio::test]
async fn calls_are_measured_by_method_and_code() {
    measure();
    let (process, channel) = start(&Workers::new(), DRAIN).await;
    call(channel.clone(), "/test.Calls/Number").await.unwrap();
    call(channel.clone(), "/test.Calls/Panic").await.unwrap_err();
    call(channel, "/test.Calls/MadeUp").await.unwrap_err();
    let text = process.get("/metrics").await;
    let counted = |method: &str, code: &str| {
        text.lines().any(|line| {
            line.starts_with("rpc_server_call_duration_seconds_count")
                && line.contains(&format!("rpc_method=\"{method}\""))
                && line.contains(&format!("rpc_response_status_code=\"{code}\""))
        })
    };
    assert!(counted("test.Calls/Number", "OK"), "{text}");
    assert!(counted("test.Calls/Panic", "INTERNAL"), "{text}");
    assert!(counted("unknown", "UNIMPLEMENTED") && !text.contains("MadeUp"), "{text}");
    assert!(text.contains("process_resident_memory_bytes") && text.contains("stampede_build_info"), "{text}");
}
