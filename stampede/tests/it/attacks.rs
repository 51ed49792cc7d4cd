//! Strangers who hold as many connections, requests, bodies and streams of a real gateway as they can, each kind alone
//! and several at once, and again as soon as these are closed. Buyers are answered in time meanwhile, the memory of the
//! gateway, a process of its own, stays under the bound of the attack, and everything held is freed by itself.
//!
//! Each single bound is tested with the gateway.

use crate::sale::{eur, fresh, in_us};
use prost::Message;
use stampede_proto::event::v1::{CreateEventRequest, NewItem, WatchEventsRequest};
use stampede_testkit::{Mesh, MeshBuilder, Process, World, as_operator, eventually, heavy};
use stampede_vocab::Service;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// The gateway's limits of connections, of requests, of streams and of the bytes of incomplete bodies: fewer than the
/// strangers would have.
const CONNECTIONS: usize = 500;
const REQUESTS: usize = 400;
const OPEN_STREAMS: usize = 200;
const UNFINISHED_BYTES: usize = 4 << 20;
/// Strangers who send no whole head.
const SILENT: usize = 600;
/// Bytes of a head that has no end, less than the largest.
const HEAD_BYTES: usize = 30 << 10;
/// Strangers whose bodies have no end, and the bytes of each that come: less than the largest body.
const TRICKLING: usize = 300;
const BODY_BYTES: usize = 40 << 10;
/// Bytes of each message over gRPC that come: all of a connection fit into the window that HTTP/2 begins with.
const MESSAGE_BYTES: usize = 500;
/// Connections of strangers who send no body, and of those who read no answer or no stream; and the requests on each.
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
/// Largest growth of the gateway's memory under several attacks at once, in MiB: some 64 KiB a connection, and unread
/// answers.
const MOST_GROWTH_MIB: f64 = 96.0;
/// Interval of pings over HTTP/2, in milliseconds: a peer that answers none is given up after two of them.
const PINGS_MS: u64 = 1_500;
/// Longest wait for an answer.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Methods that a stranger may call, in the protocols of gRPC.
const LIST_EVENTS: &str = "/stampede.event.v1.EventService/ListEvents";
const GET_EVENT: &str = "/stampede.event.v1.EventService/GetEvent";
const LIST_CAMPAIGNS: &str = "/stampede.coupon.v1.CouponService/ListCampaigns";
const WATCH_EVENTS: &str = "/stampede.event.v1.EventService/WatchEvents";

/// Metric of the requests that were answered.
const ANSWERED: &str = "http_server_request_duration_seconds_count";

/// Types of HTTP/2 frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// At most one test of these at a time, as each has hundreds of connections.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Strangers of one kind.
struct Attack {
    /// Their connections at a time.
    connections: usize,
    /// What each sends before it holds its connection.
    said: Vec<u8>,
    /// Metrics of the gateway, each with the value of one of its labels, that show what is held and that a bound is
    /// reached.
    reached: &'static [(&'static str, &'static str)],
    /// Largest growth of the gateway's memory meanwhile, in MiB, if there are no others.
    most_growth_mib: f64,
}

impl Attack {
    /// Connections that say nothing: each costs its task and its socket.
    fn silent() -> Self {
        let reached = &[("http_server_open_connections", "head"), ("http_server_cut_connections_total", "full")];
        Self { connections: SILENT, said: Vec::new(), reached, most_growth_mib: 48.0 }
    }

    /// Heads without an end: each connection also has a buffer, doubled until it has room for the largest head.
    fn endless_heads() -> Self {
        let said = [b"GET / HTTP/1.1\r\nhost: test\r\nx: ".to_vec(), vec![b'x'; HEAD_BYTES]].concat();
        Self { said, most_growth_mib: 96.0, ..Self::silent() }
    }

    /// Bodies without an end: the bytes that are counted, a buffer for each connection, and room to grow.
    fn endless_bodies() -> Self {
        let said = endless_body("/v1/auth/tokens", "application/json", &vec![b' '; BODY_BYTES]);
        let reached = &[("stampede_gateway_refused_total", "body_bytes")];
        Self { connections: TRICKLING, said, reached, most_growth_mib: 64.0 }
    }

    /// The same of calls in gRPC-Web, whose length prefix promises more than comes.
    fn endless_messages_of_web() -> Self {
        let said = endless_body(GET_EVENT, "application/grpc-web+proto", &half_a_message(BODY_BYTES));
        Self { connections: TRICKLING / 2, said, reached: &[(ANSWERED, GET_EVENT)], ..Self::endless_bodies() }
    }

    /// The same of calls in Connect, whose bodies have no prefix.
    fn endless_messages_of_connect() -> Self {
        let said = endless_body(LIST_CAMPAIGNS, "application/proto", &vec![0; BODY_BYTES]);
        Self { connections: TRICKLING / 2, said, reached: &[(ANSWERED, LIST_CAMPAIGNS)], ..Self::endless_bodies() }
    }

    /// Calls in gRPC whose length prefix promises more than comes: each costs a task, and the bytes that are counted.
    fn endless_messages_of_grpc() -> Self {
        let said = calls(LIST_EVENTS, &half_a_message(MESSAGE_BYTES), false);
        Self { connections: GREEDY, said, reached: &[(ANSWERED, LIST_EVENTS)], most_growth_mib: 64.0 }
    }

    /// Requests whose bodies do not begin: each costs a task.
    fn without_bodies() -> Self {
        let said = requests("POST", "/v1/auth/tokens", false);
        let reached = &[(ANSWERED, "408")];
        Self { connections: GREEDY, said, reached, most_growth_mib: 48.0 }
    }

    /// Streams that are not read: each costs two tasks, and the newest of what it is about.
    fn watchers_without_readers(event_id: &str) -> Self {
        let said = requests("GET", &format!("/v1/events:watch?event_ids={event_id}"), true);
        let reached = &[("http_server_unread_answers", "public"), ("stampede_gateway_refused_total", "streams")];
        Self { connections: GREEDY, said, reached, most_growth_mib: 64.0 }
    }

    /// The same over gRPC.
    fn callers_without_readers(event_id: &str) -> Self {
        let message = WatchEventsRequest { event_ids: vec![event_id.to_owned()] }.encode_to_vec();
        let said = calls(WATCH_EVENTS, &[prefix(message.len()).as_slice(), &message].concat(), true);
        Self { said, reached: &[(ANSWERED, WATCH_EVENTS)], ..Self::watchers_without_readers(event_id) }
    }

    /// Requests whose answers are not read: each costs a task. All have the same page, of which there is one.
    fn without_readers() -> Self {
        let said = requests("GET", "/openapi.json", true);
        let reached = &[("http_server_unread_answers", "public"), ("stampede_gateway_refused_total", "requests")];
        Self { connections: GREEDY, said, reached, most_growth_mib: 48.0 }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_are_answered_in_time_while_strangers_hold_all_that_they_can() {
    let attacks = [Attack::silent(), Attack::without_bodies(), Attack::without_readers()];
    is_survived(&attacks, MOST_GROWTH_MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_bounded_in_memory() {
    is_survived_alone(Attack::silent()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_an_end_are_bounded_in_memory() {
    is_survived_alone(Attack::endless_heads()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_without_an_end_are_bounded_in_memory() {
    is_survived_alone(Attack::endless_bodies()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_an_end_are_bounded_in_memory() {
    let attacks =
        [Attack::endless_messages_of_web(), Attack::endless_messages_of_connect(), Attack::endless_messages_of_grpc()];
    is_survived(&attacks, MOST_GROWTH_MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_body_are_bounded_in_memory() {
    is_survived_alone(Attack::without_bodies()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_are_bounded_in_memory() {
    is_survived_alone(Attack::without_readers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_are_bounded_in_memory() {
    let _one = ONE_AT_A_TIME.lock().await;
    let _permit = heavy().await;
    let world = World::prepared().await.unwrap();
    // Room for all requests at once: a burst that is refused as such opens no more streams than there may be.
    let roomy = bounded().set(Process::Gateway, "STAMPEDE_MAX_IN_FLIGHT", 10 * REQUESTS);
    let mesh = roomy.start(&world, [Process::Gateway, Service::Event.into()]).await.unwrap();
    let event_id = event_of_later(&mesh).await;
    // Both have the same streams, so the two together have the bound of one.
    let attacks = [Attack::watchers_without_readers(&event_id), Attack::callers_without_readers(&event_id)];
    let most_growth_mib = attacks[0].most_growth_mib;
    survives(&mesh, &attacks, most_growth_mib).await;
    mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_readers_who_vanish_are_counted_no_more() {
    let world = World::prepared().await.unwrap();
    let builder = bounded().set(Process::Gateway, "STAMPEDE_PING_INTERVAL_MS", PINGS_MS);
    let mesh = builder.start(&world, [Process::Gateway, Service::Event.into()]).await.unwrap();
    let path = format!("/v1/events:watch?event_ids={}", event_of_later(&mesh).await);
    let open_streams = || measured(&mesh, "stampede_gateway_held", "streams");
    let before = open_streams().await;

    let mut reader = connect(mesh.addresses(Process::Gateway)[0], Ipv4Addr::LOCALHOST).await.unwrap();
    reader.write_all(&requests("GET", &path, true)).await.unwrap();
    eventually("streams are counted", || async { (open_streams().await > before).then_some(()) }).await;
    // It says nothing any more, and does not close its end.
    eventually("as many streams are open as before", || async { (open_streams().await <= before).then_some(()) }).await;
    drop(reader);
    mesh.stop().await.unwrap();
}

/// Creates an event that opens after the test. Returns its id.
async fn event_of_later(mesh: &Mesh) -> String {
    let item = NewItem {
        title: "a kettle".to_owned(),
        unit_price: eur(1_999),
        total_units: 10,
        limit_per_buyer: 3,
        gift: None,
    };
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a sale under attack".to_owned(),
        open_time: in_us(Duration::from_secs(3_600)),
        close_time: in_us(Duration::from_secs(7_200)),
        items: vec![item],
    };
    mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap().event_id
}

async fn is_survived_alone(attack: Attack) {
    let most_growth_mib = attack.most_growth_mib;
    is_survived(&[attack], most_growth_mib).await;
}

async fn is_survived(attacks: &[Attack], most_growth_mib: f64) {
    let _one = ONE_AT_A_TIME.lock().await;
    let _permit = heavy().await;
    let world = World::new().unwrap();
    let mesh = bounded().start(&world, [Process::Gateway]).await.unwrap();
    survives(&mesh, attacks, most_growth_mib).await;
    mesh.stop().await.unwrap();
}

/// A mesh whose gateway has the bounds of these tests.
fn bounded() -> MeshBuilder {
    MeshBuilder::default()
        .set(Process::Gateway, "STAMPEDE_MAX_CONNECTIONS", CONNECTIONS)
        .set(Process::Gateway, "STAMPEDE_MAX_IN_FLIGHT", REQUESTS)
        .set(Process::Gateway, "STAMPEDE_MAX_STREAMS", OPEN_STREAMS)
        .set(Process::Gateway, "STAMPEDE_MAX_UNFINISHED_BYTES", UNFINISHED_BYTES)
}

/// Attacks the gateway in all of these ways at once. Checks that buyers are served meanwhile, that its memory grows by
/// less than so many MiB, and that all is free afterwards.
async fn survives(mesh: &Mesh, attacks: &[Attack], most_growth_mib: f64) {
    let gateway = mesh.addresses(Process::Gateway)[0];
    log_in(gateway).await;
    let before_mib = resident_mib(mesh).await;

    let strangers = begin(attacks, gateway);
    for (metric, label) in attacks.iter().flat_map(|attack| attack.reached) {
        let holds = || async { (measured(mesh, metric, label).await > 0.0).then_some(()) };
        eventually(&format!("strangers hold all there is: {metric} {label}"), holds).await;
    }
    let mut most_mib = resident_mib(mesh).await;
    let mut measured_p99: Vec<Duration> = Vec::new();
    while measured_p99.len() < 3 && measured_p99.last().is_none_or(|p99| *p99 >= MOST_P99) {
        measured_p99.push(p99(gateway).await);
        most_mib = most_mib.max(resident_mib(mesh).await);
    }
    assert!(measured_p99.last().is_some_and(|p99| *p99 < MOST_P99), "99 of 100 who buy wait {measured_p99:?}");
    let grown_mib = most_mib - before_mib;
    assert!(grown_mib < most_growth_mib, "the gateway has grown by {grown_mib} MiB");

    drop(strangers);
    let is_free = || async {
        let open = measured(mesh, "http_server_open_connections", "public").await;
        let unread = measured(mesh, "http_server_unread_answers", "public").await;
        let held = measured(mesh, "stampede_gateway_held", "").await;
        (open < 5.0 && unread < 1.0 && held < 1.0).then_some(())
    };
    eventually("what was held is free", is_free).await;
    assert!(ask(gateway, "GET", "/").await.starts_with("HTTP/1.1 200"));
}

/// Strangers of these kinds, until this is dropped.
fn begin(attacks: &[Attack], gateway: SocketAddr) -> JoinSet<()> {
    let mut strangers = JoinSet::new();
    for attack in attacks {
        for _ in 0..attack.connections {
            strangers.spawn(hold(gateway, attack.said.clone()));
        }
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

/// A request over HTTP/1 whose body has one byte more than comes.
fn endless_body(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len() + 1;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The first bytes of a message of gRPC, and a prefix that promises twice as many.
fn half_a_message(bytes: usize) -> Vec<u8> {
    [prefix(2 * bytes).as_slice(), &vec![0_u8; bytes]].concat()
}

/// The length prefix of a message of gRPC that is not compressed.
fn prefix(length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).unwrap().to_be_bytes();
    [0, a, b, c, d]
}

/// The first bytes of an HTTP/2 client that reads no answer: so many requests, whole or with a body to come.
fn requests(method: &str, path: &str, is_whole: bool) -> Vec<u8> {
    streams(&[(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)], &[], is_whole)
}

/// The same of calls in gRPC with this body, whole or with more of it to come.
fn calls(path: &str, body: &[u8], is_whole: bool) -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)];
    streams(&[&pseudo[..], &[("content-type", "application/grpc")]].concat(), body, is_whole)
}

/// The first bytes of an HTTP/2 client that gives its streams no window, and opens so many with this head and body.
fn streams(fields: &[(&str, &str)], body: &[u8], is_whole: bool) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let mut head = Vec::new();
    for &(name, value) in fields {
        // A literal that is not indexed, its name too (RFC 7541 6.2.2).
        head.push(0);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).unwrap());
            head.extend(text.as_bytes());
        }
    }
    let (end_headers, end_stream) = (4, u8::from(is_whole));
    for stream in (0..STREAMS).map(|number| number * 2 + 1) {
        if body.is_empty() {
            bytes.extend(frame(HEADERS, end_headers | end_stream, stream, &head));
        } else {
            bytes.extend(frame(HEADERS, end_headers, stream, &head));
            bytes.extend(frame(DATA, end_stream, stream, body));
        }
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
    timeout(MAX_WAIT, asked).await.expect("the answer ends").unwrap()
}

/// The memory of the gateway.
async fn resident_mib(mesh: &Mesh) -> f64 {
    measured(mesh, "process_resident_memory_bytes", "").await / f64::from(1 << 20)
}

/// The sum of a metric of the gateway, over the series that have this as the value of a label; of all for an empty one.
async fn measured(mesh: &Mesh, metric: &str, value: &str) -> f64 {
    let page = ask(mesh.admin_addresses(Process::Gateway)[0], "GET", "/metrics").await;
    let of_metric =
        page.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let counted = of_metric.filter(|line| value.is_empty() || line.contains(&format!("=\"{value}\"")));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
