//! Requests that clients send byte by byte.

use super::{plays_long_cases, visitor::Visitor};
use crate::{
    roles::token,
    sale::{Sale, fresh},
};
use futures_util::future::join_all;
use stampede_testkit::{Mesh, Process};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Longest wait for an answer, however slow the machine is.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Pause between a head and its body: long enough for an early answer.
const PAUSE: Duration = Duration::from_millis(200);
/// A request within a body. Only a server that has lost count of the body would answer it, with a problem that names
/// its path.
const WITHIN: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
const NAMED: &str = "under /smuggled";
const CHUNKED: &str = "transfer-encoding: chunked";
/// Size of a body that is larger than the gateway reads.
const LARGE: usize = 100 * 1024;
/// Connections that are kept over HTTP/1.0, and the requests on each; as many as in the field in the long form.
const KEPT: usize = 50;
const REQUESTS: usize = 10;
const MANY_REQUESTS: usize = 100;
/// Fewest paths that the gateway describes.
const PATHS: usize = 15;
/// The last request on a connection.
const LAST: &str = "GET /v1/events HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// Sends all bytes, and reads until the connection ends.
pub async fn whole(address: SocketAddr, sent: &str) -> String {
    in_writes(address, &[sent]).await
}

/// Sends all bytes in these writes, with a pause before each but the first, and reads until the connection ends.
async fn in_writes(address: SocketAddr, writes: &[&str]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    for (number, sent) in writes.iter().enumerate() {
        if number > 0 {
            sleep(PAUSE).await;
        }
        // A server that refuses may close before it has read everything.
        let _ = socket.write_all(sent.as_bytes()).await;
    }
    let mut answer = Vec::new();
    let read = timeout(MAX_WAIT, socket.read_to_end(&mut answer)).await;
    // An end or a reset, both are closed.
    drop(read.unwrap_or_else(|_| panic!("{writes:?}: no end of the answer: {}", String::from_utf8_lossy(&answer))));
    String::from_utf8_lossy(&answer).into_owned()
}

/// An order with these headers and this body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/orders HTTP/1.1\r\nhost: test\r\n{headers}\r\n\r\n{body}")
}

/// Returns the statuses of the answers on one connection.
fn statuses(answers: &str) -> Vec<u16> {
    let status = |answer: &str| answer.get(..3).and_then(|status| status.parse().ok());
    let answers = answers.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| status(answer).unwrap_or_else(|| panic!("no status: {answer}"))).collect()
}

/// A request with another one in its body.
struct Carrier {
    what: &'static str,
    request: String,
    /// The status that it is answered with.
    status: u16,
    /// Whether two servers could disagree about where it ends. Then nothing behind it may be answered.
    is_ambiguous: bool,
}

/// Those whose end is certain.
fn clear_carriers(bearer: &str) -> Vec<Carrier> {
    let large = WITHIN.repeat(LARGE.div_ceil(WITHIN.len()));
    let (length, large_length) = (length_of(WITHIN), length_of(&large));
    let unknown = format!("POST /v1/nothing HTTP/1.1\r\nhost: test\r\n{length}\r\n\r\n{WITHIN}");
    let get = format!("GET /v1/events HTTP/1.1\r\nhost: test\r\n{length}\r\n\r\n{WITHIN}");
    let carriers = [
        ("no token", 401, post(&length, WITHIN)),
        ("no token, and chunks", 401, post(CHUNKED, &chunks(WITHIN))),
        ("no token, and a large body", 401, post(&large_length, &large)),
        ("no token, and a large chunk", 401, post(CHUNKED, &chunks(&large))),
        ("a large body", 413, post(&format!("{bearer}{large_length}"), &large)),
        ("a large chunk", 413, post(&format!("{bearer}{CHUNKED}"), &chunks(&large))),
        ("a GET with a body", 200, get),
        ("an unknown path", 404, unknown),
    ];
    let carrier = |(what, status, request)| Carrier { what, request, status, is_ambiguous: false };
    carriers.map(carrier).into()
}

/// Those whose end two servers may see in two places.
fn ambiguous_carriers(bearer: &str) -> Vec<Carrier> {
    let (length, chunk) = (length_of(WITHIN), chunks(WITHIN));
    let (signed, endless) = (format!("+{chunk}"), format!("fffffffffffffffff\r\n{WITHIN}"));
    let both = format!("content-length: 5\r\n{CHUNKED}");
    let carriers = [
        ("two lengths", 400, post(&format!("{bearer}content-length: 0\r\n{length}"), WITHIN)),
        ("a length with a sign", 400, post(&format!("{bearer}{}", length.replace(": ", ": +")), WITHIN)),
        ("a length before chunks", 400, post(&format!("{bearer}{both}"), &chunk)),
        ("a length behind chunks", 400, post(&format!("{bearer}{CHUNKED}\r\ncontent-length: 5"), &chunk)),
        ("a chunk with a sign", 400, post(&format!("{bearer}{CHUNKED}"), &signed)),
        ("a chunk longer than all", 400, post(&format!("{bearer}{CHUNKED}"), &endless)),
        // Refused before the body is looked at.
        ("no token, and a length before chunks", 401, post(&both, &chunk)),
        ("no token, and a chunk with a sign", 401, post(CHUNKED, &signed)),
        ("no token, and a chunk longer than all", 401, post(CHUNKED, &endless)),
    ];
    let carrier = |(what, status, request)| Carrier { what, request, status, is_ambiguous: true };
    carriers.map(carrier).into()
}

fn length_of(body: &str) -> String {
    format!("content-length: {}", body.len())
}

/// The body as one chunk, and the end.
fn chunks(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

impl Carrier {
    /// Sends it with one more request behind it, in one write and in two, and checks the answers.
    async fn is_answered_alone(&self, address: SocketAddr) {
        let sent = format!("{}{LAST}", self.request);
        let (head, body) = sent.split_at(sent.find("\r\n\r\n").unwrap() + 4);
        let (together, apart) = ([sent.as_str()], [head, body]);
        let (together, apart) = tokio::join!(in_writes(address, &together), in_writes(address, &apart));
        for answers in [together, apart] {
            let what = self.what;
            assert!(!answers.contains(NAMED), "case 16: {what}: {answers}");
            // The last request is answered, unless the connection has ended before.
            let (one, two) = ([self.status], [self.status, 200]);
            let statuses = statuses(&answers);
            let is_right = statuses == one || (statuses == two && !self.is_ambiguous);
            assert!(is_right, "case 16: {what}: {statuses:?} and not {one:?}: {answers}");
        }
    }
}

pub async fn case_16_what_is_in_a_body_is_never_taken_for_a_request(mesh: &Mesh) {
    let address = mesh.addresses(Process::Gateway)[0];
    let bearer = format!("content-type: application/json\r\nauthorization: Bearer {}\r\n", token(mesh, "buyer"));
    let carriers: Vec<Carrier> = clear_carriers(&bearer).into_iter().chain(ambiguous_carriers(&bearer)).collect();
    join_all(carriers.iter().map(|carrier| carrier.is_answered_alone(address))).await;
    // The answer to a real request of this kind, which shows that none was seen above.
    let answer = whole(address, &format!("{WITHIN}{LAST}")).await;
    assert!(answer.contains(NAMED), "case 16: a request for an unknown path: {answer}");
}

pub async fn case_17_clients_of_old_get_whole_answers(sale: &Sale) {
    let address = sale.mesh.addresses(Process::Gateway)[0];
    let token = token(&sale.mesh, "buyer");
    clients_that_wait_to_go_on(address, &token).await;
    clients_that_want_the_head_alone(sale, address, &token).await;
    let requests = if plays_long_cases() { MANY_REQUESTS } else { REQUESTS };
    join_all((0..KEPT).map(|_| a_client_of_http_1_0(address, requests))).await;
    every_path_says_what_it_takes(&sale.mesh).await;
}

/// Sends the head of an order with `Expect: 100-continue`, and the body if that is wanted. Returns all answers.
async fn after_waiting(address: SocketAddr, headers: &str, body: &str) -> String {
    let headers = format!("{headers}{}\r\nexpect: 100-continue\r\nconnection: close", length_of(body));
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(post(&headers, "").as_bytes()).await.unwrap();
    let go_on = b"HTTP/1.1 100";
    let mut answers = vec![0; go_on.len()];
    timeout(MAX_WAIT, socket.read_exact(&mut answers)).await.expect("case 17: an answer to Expect").unwrap();
    if answers == go_on {
        // A server that refuses may close before it has read everything.
        let _ = socket.write_all(body.as_bytes()).await;
    }
    // An end or a reset, both are closed.
    let _ = timeout(MAX_WAIT, socket.read_to_end(&mut answers)).await.expect("case 17: an end of the answer");
    String::from_utf8_lossy(&answers).into_owned()
}

async fn clients_that_wait_to_go_on(address: SocketAddr, token: &str) {
    let bearer = format!("authorization: Bearer {token}\r\n");
    for (headers, size, expected) in [
        // Refused without the body.
        ("", 20_000, &[401][..]),
        ("", LARGE, &[401][..]),
        (bearer.as_str(), 20_000, &[100, 400][..]),
        (bearer.as_str(), LARGE, &[100, 413][..]),
    ] {
        let answers = after_waiting(address, headers, &"x".repeat(size)).await;
        assert_eq!(statuses(&answers), expected, "case 17: Expect and {size} bytes: {answers}");
    }
    // It may be refused as an expectation that nobody meets, or ignored.
    let headers = format!("{bearer}content-length: 1\r\nexpect: 200-ok\r\nconnection: close");
    let answers = whole(address, &post(&headers, "x")).await;
    assert!(
        [[400_u16], [417]].iter().any(|expected| statuses(&answers) == expected),
        "case 17: Expect: 200-ok: {answers}"
    );
}

async fn clients_that_want_the_head_alone(sale: &Sale, address: SocketAddr, token: &str) {
    let event = &sale.event.event_id;
    for path in [format!("/v1/events:watch?event_ids={event}"), format!("/v1/events/{event}/stock:watch")] {
        let answer = whole(address, &format!("HEAD {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.ends_with("\r\n\r\n"), "case 17: HEAD {path} has no body: {answer}");
        for line in ["HTTP/1.1 200 OK", "content-type: text/event-stream", "cache-control: no-cache"] {
            assert!(answer.lines().any(|has| has == line), "case 17: HEAD {path} has no {line:?}: {answer}");
        }
    }
    // A stream that is nobody's is refused as by GET.
    let order = format!("HEAD /v1/orders/{}:watch HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}", fresh());
    let answer = whole(address, &format!("{order}\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 4") && answer.ends_with("\r\n\r\n"), "case 17: {order}: {answer}");
}

/// Sends so many requests over HTTP/1.0 on one connection, of which the last does not ask to keep it.
async fn a_client_of_http_1_0(address: SocketAddr, requests: usize) {
    let kept = "GET /v1/events HTTP/1.0\r\nhost: test\r\nconnection: keep-alive\r\n\r\n".repeat(requests - 1);
    let last = "GET /v1/events HTTP/1.0\r\nhost: test\r\n\r\n";
    let answers = whole(address, &format!("{kept}{last}")).await;
    assert_eq!(answers.matches(" 200 OK").count(), requests, "case 17: a connection of HTTP/1.0: {answers}");
    // Without this line such a client opens another connection.
    let told = answers.to_ascii_lowercase().matches("\r\nconnection: keep-alive\r\n").count();
    assert_eq!(told, requests - 1, "case 17: a connection of HTTP/1.0 that is kept: {answers}");
}

async fn every_path_says_what_it_takes(mesh: &Mesh) {
    let address = mesh.addresses(Process::Gateway)[0];
    let description = Visitor::of(mesh.url(Process::Gateway)).get("/openapi.json", "").await.json;
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() >= PATHS, "case 17: the gateway describes {} paths", paths.len());
    let paths = paths.keys().map(|path| with_an_id(path));
    let asked =
        paths.flat_map(|path| [("OPTIONS", 204_u16), ("TRACE", 405), ("PATCH", 405)].map(|ask| (ask, path.clone())));
    for ((method, status), path) in asked.chain([(("OPTIONS", 204), "*".to_owned())]) {
        let answer =
            whole(address, &format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(statuses(&answer), [status], "case 17: {method} {path}: {answer}");
        assert!(answer.contains("\r\nallow: "), "case 17: {method} {path}: {answer}");
    }
}

/// A path with a word in place of its variable.
fn with_an_id(path: &str) -> String {
    match (path.find('{'), path.find('}')) {
        (Some(from), Some(to)) => format!("{}some{}", &path[..from], &path[to + 1..]),
        _ => path.to_owned(),
    }
}
