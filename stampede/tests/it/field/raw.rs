//! Requests that clients send byte by byte.

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
/// A request within a body. Only a server that has lost count of the body would answer it, with the problem of an
/// unknown path.
const WITHIN: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
const UNKNOWN: &str = "UNKNOWN_PATH";
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

pub async fn case_16_what_is_in_a_body_is_never_taken_for_a_request(address: SocketAddr) {
    let length = format!("content-length: {}", WITHIN.len());
    let chunk = format!("{:x}\r\n{WITHIN}\r\n0\r\n\r\n", WITHIN.len());
    let chunked = "transfer-encoding: chunked";
    for (what, sent) in [
        ("no token", post(&length, WITHIN)),
        ("no token, and chunks", post(chunked, &chunk)),
        ("a GET with a body", format!("GET /v1/events HTTP/1.1\r\nhost: test\r\n{length}\r\n\r\n{WITHIN}")),
        ("two lengths", post(&format!("content-length: 0\r\n{length}"), WITHIN)),
        ("a length and chunks", post(&format!("content-length: 5\r\n{chunked}"), &chunk)),
        ("a length with a sign", post(&length.replace(": ", ": +"), WITHIN)),
        ("a chunk with a sign", post(chunked, &format!("+{chunk}"))),
        ("a chunk longer than all", post(chunked, &format!("fffffffffffffffff\r\n{WITHIN}"))),
    ] {
        let sent = format!("{sent}{LAST}");
        let (head, body) = sent.split_at(sent.find("\r\n\r\n").unwrap() + 4);
        let (together, apart) = ([sent.as_str()], [head, body]);
        for writes in [&together[..], &apart[..]] {
            let answer = in_writes(address, writes).await;
            assert!(!answer.contains(UNKNOWN), "case 16: {what}: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 2, "case 16: {what}: {answer}");
            assert!(!answer.contains("HTTP/1.1 5"), "case 16: {what}: {answer}");
        }
    }
    // The answer to a real request of this kind, which shows that none was seen above.
    let answer = whole(address, &format!("{WITHIN}{LAST}")).await;
    assert!(answer.contains(UNKNOWN), "case 16: a request for an unknown path: {answer}");
}

pub async fn case_17_clients_of_old_get_whole_answers(address: SocketAddr) {
    // A client with `Expect: 100-continue` gets an answer without its body, or the 100.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = post("content-length: 20000\r\nexpect: 100-continue", "");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(MAX_WAIT, socket.read_exact(&mut status)).await.expect("case 17: an answer to Expect").unwrap();
    let status = String::from_utf8_lossy(&status);
    assert!(["HTTP/1.1 401", "HTTP/1.1 100"].contains(&&*status), "case 17: Expect: {status}");

    let stream = "/v1/events:watch?event_ids=evt_00000000000000000000000000";
    let answer = whole(address, &format!("HEAD {stream} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.ends_with("\r\n\r\n"), "case 17: a stream that is asked for by HEAD has no body: {answer}");

    // HTTP/1.0, with and without keep-alive.
    let kept = "GET /v1/events HTTP/1.0\r\nhost: test\r\nconnection: keep-alive\r\n\r\n";
    let last = "GET /v1/events HTTP/1.0\r\nhost: test\r\n\r\n";
    let answer = whole(address, &format!("{kept}{last}")).await;
    assert_eq!(answer.matches(" 200 OK").count(), 2, "case 17: a connection of HTTP/1.0 that is kept: {answer}");
}
