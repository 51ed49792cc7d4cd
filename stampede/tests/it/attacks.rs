//! Strangers who hold as many connections, requests and streams of a real gateway as they can, all at once and again as
//! soon as these are closed. Buyers are answered in time meanwhile, the gateway's memory stays bounded, and everything
//! held is freed by itself.
//!
//! Each single bound is tested with the gateway.

use stampede_testkit::{Mesh, MeshBuilder, Process, World, eventually, heavy};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// The gateway's limits of connections and requests: fewer than the strangers would have.
const CONNECTIONS: usize = 500;
const REQUESTS: usize = 400;
/// Strangers who say nothing.
const SILENT: usize = 600;
/// Connections of strangers who send no body, and of those who read no answer; and the requests on each.
const GREEDY: usize = 4;
const STREAMS: u32 = 100;
/// Time for which they hold one connection, and the pause before the next.
const HOLD: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Purchases, or their first steps, in one measurement.
const ASKED: usize = 200;
/// Time within which 99 of 100 of them are answered: a delay that a buyer does not notice. The attackers and the
/// servers have the same cores, so one of three measurements has to be that good.
const MOST_P99: Duration = Duration::from_millis(100);
/// Largest growth of the gateway's memory: some 64 KiB a connection, and unread answers.
const MOST_GROWTH: f64 = 96.0 * 1024.0 * 1024.0;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Types of HTTP/2 frames.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_are_answered_in_time_while_strangers_hold_all_that_they_can() {
    let _turn = heavy().await;
    let world = World::new().unwrap();
    let mesh = MeshBuilder::default()
        .set(Process::Gateway, "STAMPEDE_MAX_CONNECTIONS", CONNECTIONS)
        .set(Process::Gateway, "STAMPEDE_MAX_IN_FLIGHT", REQUESTS)
        .start(&world, [Process::Gateway])
        .await
        .unwrap();
    let gateway = mesh.addresses(Process::Gateway)[0];
    log_in(gateway).await;
    let before = measured(&mesh, "process_resident_memory_bytes", "").await;

    let strangers = attack(gateway);
    for (metric, label) in
        [("http_server_cut_connections_total", "full"), ("stampede_gateway_refused_total", "requests")]
    {
        let holds = || async { (measured(&mesh, metric, label).await > 0.0).then_some(()) };
        eventually(&format!("strangers hold all there is: {metric} {label}"), holds).await;
    }
    let mut measured_p99: Vec<Duration> = Vec::new();
    while measured_p99.len() < 3 && measured_p99.last().is_none_or(|p99| *p99 >= MOST_P99) {
        measured_p99.push(p99(gateway).await);
    }
    assert!(measured_p99.last().is_some_and(|p99| *p99 < MOST_P99), "99 of 100 who buy wait {measured_p99:?}");
    let grown = measured(&mesh, "process_resident_memory_bytes", "").await - before;
    assert!(grown < MOST_GROWTH, "the gateway has grown by {grown} bytes");

    drop(strangers);
    let is_free = || async {
        let open = measured(&mesh, "http_server_open_connections", "public").await;
        let held = measured(&mesh, "stampede_gateway_held", "requests").await;
        (open < 5.0 && held < 1.0).then_some(())
    };
    eventually("what was held is free", is_free).await;
    assert!(ask(gateway, "GET", "/").await.starts_with("HTTP/1.1 200"));
    mesh.stop().await.unwrap();
}

/// Strangers of every kind, until this is dropped.
fn attack(gateway: SocketAddr) -> JoinSet<()> {
    let mut strangers = JoinSet::new();
    for _ in 0..SILENT {
        strangers.spawn(hold(gateway, Vec::new()));
    }
    for _ in 0..GREEDY {
        strangers.spawn(hold(gateway, requests("POST", "/v1/auth/tokens", false)));
        strangers.spawn(hold(gateway, requests("GET", "/openapi.json", true)));
    }
    strangers
}

/// Sends this, holds the connection for as long as it may, and begins again.
async fn hold(gateway: SocketAddr, said: Vec<u8>) {
    loop {
        if let Ok(socket) = connect(gateway, Ipv4Addr::new(127, 0, 0, 2)).await {
            // It may be closed at any moment.
            let _ = timeout(HOLD, until_closed(socket, &said)).await;
        }
        sleep(PAUSE).await;
    }
}

async fn until_closed(mut socket: TcpStream, said: &[u8]) -> io::Result<()> {
    socket.write_all(said).await?;
    let mut heard = [0; 4096];
    while socket.read(&mut heard).await? > 0 {}
    Ok(())
}

async fn connect(gateway: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(gateway).await
}

/// The first bytes of an HTTP/2 client that reads no answer: so many requests, whole or with a body to come.
fn requests(method: &str, path: &str, is_whole: bool) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let mut head = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)] {
        // A literal that is not indexed, its name too (RFC 7541 6.2.2).
        head.push(0);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).unwrap());
            head.extend(text.as_bytes());
        }
    }
    let (end_headers, end_stream) = (4, u8::from(is_whole));
    for number in 0..STREAMS {
        bytes.extend(frame(HEADERS, end_headers | end_stream, number * 2 + 1, &head));
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Logs in again and again, each time over a connection of its own. Returns the latency that one in a hundred exceeds.
async fn p99(gateway: SocketAddr) -> Duration {
    let mut took = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let started = Instant::now();
        log_in(gateway).await;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    took[ASKED * 99 / 100 - 1]
}

/// The first step of every purchase, which has a reserve of its own.
async fn log_in(gateway: SocketAddr) {
    let answer = ask(gateway, "POST", "/v1/auth/tokens").await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// The whole answer to a request without a body.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let asked = async {
        let mut socket = connect(address, Ipv4Addr::LOCALHOST).await?;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    timeout(PATIENCE, asked).await.expect("the answer ends").unwrap()
}

/// The sum of a metric of the gateway, over the series that have this as the value of a label; of all for an empty one.
async fn measured(mesh: &Mesh, metric: &str, value: &str) -> f64 {
    let page = ask(mesh.admin_addresses(Process::Gateway)[0], "GET", "/metrics").await;
    let of_metric =
        page.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let counted = of_metric.filter(|line| value.is_empty() || line.contains(&format!("=\"{value}\"")));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
