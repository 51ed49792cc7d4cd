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
use std::sync::{Arc, Mutex, Once};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

pub(super) const DRAIN: Duration = Duration::from_secs(5);

pub(super) async fn start(workers: &Workers, drain: Duration) -> (Process, Channel) {
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

/// Exports metrics from now on.
pub(super) fn measure() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| drop(install_metrics("test", Resource::builder_empty().build()).unwrap()));
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
