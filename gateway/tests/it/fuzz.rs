//! Fuzzing: whatever is sent, the gateway answers it in its own format, finds the fault with the client, and goes on.

use crate::{
    dice::{Dice, end, seed},
    drawn::routes,
    front::{Answer, Front, build, good_token},
    services,
};
use futures_util::future::join_all;
use http::{Method, header};
use serde_json::Value;
use stampede_chassis::{Workers, serve_on};
use stampede_vocab::Service;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for an answer, however slow the machine is.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for an answer to what may be half a request.
const GLANCE: Duration = Duration::from_millis(30);
/// Connections at a time.
const CONNECTIONS: u64 = 8;

/// Returns flags by which every service is at this URL, and frequent acts are not refused.
fn everything_at(url: &str) -> Vec<(String, String)> {
    let services = Service::ALL.map(|service| (format!("--{service}-urls"), url.to_owned()));
    let unlimited = ("--act-limits-factor".to_owned(), "1000000".to_owned());
    services.into_iter().chain([unlimited]).collect()
}

#[tokio::test]
async fn whatever_is_asked_the_fault_is_never_the_gateways() {
    let (url, _guard) = services::serve_anything().await;
    let flags = everything_at(&url);
    let flags: Vec<(&str, &str)> = flags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let front = Front::start(&flags).await;
    let (routes, tokens) = (routes(), [String::new(), good_token("buyer"), good_token("operator")]);
    let (seed, end) = (seed(), end());
    let mut succeeded = 0_u32;
    for case in 0.. {
        let mut dice = Dice::of(seed, case);
        let drawn = dice.pick(&routes).draw(&mut dice, &tokens);
        let Some(request) = drawn.request() else { continue };
        let answer = timeout(ANSWER, front.send(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to case {case}: {drawn:?}"));
        if let Err(fault) = judge(&answer, &drawn.method) {
            panic!("{fault} in the answer to case {case}: {drawn:?}\n{answer:?}");
        }
        succeeded += u32::from(answer.status.is_success());
        if Instant::now() >= end {
            break;
        }
    }
    assert!(succeeded > 0, "nothing got through, so nothing was tried behind the checks");
}

/// Fails with the fault of an answer, if it has one.
fn judge(answer: &Answer, method: &Method) -> Result<(), String> {
    if answer.status.is_server_error() {
        return Err("a fault of the gateway".to_owned());
    }
    // The answer to HEAD has no body.
    if !answer.status.is_client_error() || *method == Method::HEAD {
        return Ok(());
    }
    let problem: Value = serde_json::from_str(&answer.text).map_err(|error| error.to_string())?;
    let is_text = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
    let same_trace = answer.headers.get("x-trace-id").and_then(|id| id.to_str().ok()) == problem["trace_id"].as_str();
    for (sound, what) in [
        (answer.headers.get(header::CONTENT_TYPE).is_some_and(|is| is == "application/problem+json"), "content type"),
        (problem["status"] == answer.status.as_u16(), "status"),
        (["type", "title", "detail", "reason"].into_iter().all(is_text), "text"),
        (same_trace, "trace"),
    ] {
        if !sound {
            return Err(format!("a wrong {what}"));
        }
    }
    Ok(())
}

/// Valid requests, to begin with.
const SOUND: [&[u8]; 5] = [
    b"GET /v1/events?page_size=3 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/auth/tokens HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/auth/tokens:verify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
      5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    // The preface of HTTP/2, empty settings, and a head of one stream: GET, http, /.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
];

/// Pieces that are put into them.
const PIECES: [&[u8]; 14] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b":",
    b"\xff",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"ffffffffffffffff\r\n",
    b"Authorization: Bearer \x80\r\n",
    // Frames: a ping, a reset of stream 1, a window of none, a length of 16 MiB.
    b"\0\0\x08\x06\0\0\0\0\0aaaaaaaa\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01",
];

#[tokio::test]
async fn whatever_bytes_arrive_the_gateway_goes_on() {
    let workers = Workers::new();
    let (url, _guard) = services::serve_anything().await;
    let flags = everything_at(&url);
    let flags: Vec<(&str, &str)> = flags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let http = build(&flags, &workers).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let served = tokio::spawn(serve_on(listener, None, http, workers, stop.clone(), Duration::from_secs(1)));
    let (seed, end) = (seed(), end());
    for round in 0.. {
        let cases = (0..CONNECTIONS).map(|number| {
            let case = round * CONNECTIONS + number;
            async move {
                let bytes = damaged(&mut Dice::of(seed, case));
                let answer = sent(address, &bytes).await;
                let failed = answer.windows(10).any(|part| part.starts_with(b"HTTP/1.") && part.ends_with(b" 5"));
                let (bytes, answer) = (String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&answer));
                assert!(!failed, "case {case}: {bytes:?} was answered {answer:?}");
            }
        });
        join_all(cases).await;
        assert!(is_served(address).await, "a sound request is not answered after round {round}");
        if Instant::now() >= end {
            break;
        }
    }
    stop.cancel();
    served.await.unwrap().unwrap();
}

fn damaged(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.pick(&SOUND).to_vec();
    dice.damage(&mut bytes, &PIECES);
    bytes
}

/// Sends the bytes and returns what comes back shortly.
async fn sent(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // It may be closed at any moment, and all that came back until then counts.
    let _ = timeout(GLANCE, async {
        connection.write_all(bytes).await?;
        connection.read_to_end(&mut answer).await
    })
    .await;
    answer
}

async fn is_served(address: SocketAddr) -> bool {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    matches!(timeout(ANSWER, exchange).await, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
}
