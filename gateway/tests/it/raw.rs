//! A gateway behind a real port, and clients that speak HTTP byte by byte: only so can a test behave as badly as a
//! stranger may.

use crate::{front::build, services};
use stampede_chassis::{Workers, serve_on};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for what must come, however slow the machine is.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of HTTP/2 frames.
pub mod frame {
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const GOAWAY: u8 = 7;
}

/// A gateway on a port of its own, with the services of the tests behind it.
pub struct Door {
    pub address: SocketAddr,
    _services: DropGuard,
    _stop: DropGuard,
}

impl Door {
    pub async fn open(flags: &[(&str, &str)]) -> Self {
        let (url, services) = services::serve().await;
        let urls = [("--event-urls", url.as_str()), ("--payment-urls", url.as_str())];
        let flags: Vec<_> = urls.into_iter().chain(flags.iter().copied()).collect();
        let workers = Workers::new();
        let http = build(&flags, &workers).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_on(listener, None, http, workers, stop.clone(), Duration::from_millis(100)));
        Self { address, _services: services, _stop: stop.drop_guard() }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects from an address of this machine, such as 127.0.0.2.
    pub async fn connect_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from(address), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Opens a connection that speaks HTTP/2, and whose streams have no window unless one is given.
    pub async fn connect_http2(&self) -> Http2 {
        let mut socket = self.connect().await;
        socket.write_all(PREFACE).await.unwrap();
        let mut http2 = Http2 { socket, next_stream: 1, seen: HashMap::new() };
        // SETTINGS_INITIAL_WINDOW_SIZE is 0.
        http2.send(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        http2
    }

    /// Sends a request as an honest client, on a connection of its own. Returns the whole answer.
    pub async fn ask(&self, method: &str, path: &str) -> String {
        ask_on(self.connect().await, method, path).await
    }

    /// Repeats a request until the answer has this status line. Returns how long that took.
    pub async fn ask_until(&self, method: &str, path: &str, status: &str) -> Duration {
        let started = Instant::now();
        loop {
            let answer = self.ask(method, path).await;
            if answer.starts_with(&format!("HTTP/1.1 {status}")) {
                return started.elapsed();
            }
            assert!(started.elapsed() < MAX_WAIT, "{method} {path} is not {status} but {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends a request without a body, and reads until the connection ends.
pub async fn ask_on(mut socket: TcpStream, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // A connection that is refused may be closed already.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(MAX_WAIT, socket.read_to_end(&mut answer)).await.expect("the answer ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Has a client vanish without a word, as a phone does that loses its network: all that arrives for it is dropped, so
/// it acknowledges nothing and answers nobody.
#[cfg(target_os = "linux")]
pub fn vanish(client: &TcpStream) {
    // The one instruction of a filter that keeps nothing of a packet: BPF_RET with 0.
    let keeps_nothing = socket2::SockFilter::new(6, 0, 0, 0);
    socket2::SockRef::from(client).attach_filter(&[keeps_nothing]).unwrap();
}

/// Returns how long it takes until the other side closes.
pub async fn closed_after(socket: &mut TcpStream) -> Duration {
    let (started, mut rest) = (Instant::now(), Vec::new());
    // An end or a reset, both are closed.
    let _ = timeout(MAX_WAIT, socket.read_to_end(&mut rest)).await.expect("the connection is closed");
    started.elapsed()
}

fn encoded(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns the fields of a request.
fn head(method: &str, path: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)] {
        // A literal that is not indexed, its name too (RFC 7541 6.2.2).
        head.push(0);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).unwrap());
            assert!(text.len() < 127, "a longer text has a longer length");
            head.extend(text.as_bytes());
        }
    }
    head
}

/// A client of HTTP/2 that sends nothing by itself: it answers neither pings nor settings.
pub struct Http2 {
    pub socket: TcpStream,
    next_stream: u32,
    /// Number of frames of each kind that were read.
    seen: HashMap<u8, usize>,
}

impl Http2 {
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.socket.write_all(&encoded(kind, flags, stream, payload)).await.unwrap();
    }

    /// Opens a stream with the head of a request; without an end there is a body to come.
    pub async fn open(&mut self, method: &str, path: &str, is_whole: bool) {
        let (end_headers, end_stream) = (4, u8::from(is_whole));
        let stream = self.next_stream;
        self.next_stream += 2;
        self.send(frame::HEADERS, end_headers | end_stream, stream, &head(method, path)).await;
    }

    /// Opens streams with whole requests and cancels each at once, all in one write.
    pub async fn open_and_cancel(&mut self, count: usize, method: &str, path: &str) {
        let (ends, cancel, head) = (5, [0, 0, 0, 8], head(method, path));
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.extend(encoded(frame::HEADERS, ends, self.next_stream, &head));
            frames.extend(encoded(frame::RST_STREAM, 0, self.next_stream, &cancel));
            self.next_stream += 2;
        }
        self.socket.write_all(&frames).await.unwrap();
    }

    /// Reads until as many frames of this kind have come in all, also while others were waited for.
    pub async fn wait_for(&mut self, kind: u8, count: usize) {
        let reading = async {
            while self.seen.get(&kind).copied().unwrap_or(0) < count {
                let mut head = [0; 9];
                self.socket.read_exact(&mut head).await.expect("a frame comes before the end");
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.socket.read_exact(&mut payload).await.expect("a frame is whole");
                *self.seen.entry(head[3]).or_default() += 1;
            }
        };
        timeout(MAX_WAIT, reading).await.unwrap_or_else(|_| panic!("of {count} frames {kind} there were fewer"));
    }
}
