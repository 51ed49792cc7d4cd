//! Probes whether a server is ready, in its own protocol: an open port alone proves nothing.
//! Each probe answers within a second.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(1);

/// Redis answers a PING, and no longer with LOADING.
pub fn redis(port: u16) -> bool {
    exchange(port, b"PING\r\n", 5).is_some_and(|reply| reply == b"+PONG")
}

/// MySQL and MariaDB greet with protocol version 10, after their start-up file has run.
pub fn database(port: u16) -> bool {
    exchange(port, b"", 5).is_some_and(|greeting| greeting[4] == 10)
}

/// Kafka names at least one broker in its metadata: the node has registered with its controller.
pub fn kafka(port: u16) -> bool {
    // Size 14, Metadata (3), version 0, correlation id 1, no client id, no topics.
    const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    // Size, correlation id, then the number of brokers.
    exchange(port, &REQUEST, 12).is_some_and(|reply| reply[8..12] != [0; 4])
}

/// A process of the mesh answers 200 to `GET /readyz` on its admin port.
pub fn http_ready(port: u16) -> bool {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    exchange(port, request.as_bytes(), 12).is_some_and(|reply| reply == b"HTTP/1.1 200")
}

/// An HTTP server answers at all: the sandbox has no admin port.
pub fn http_answers(port: u16) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    exchange(port, request.as_bytes(), 7).is_some_and(|reply| reply == b"HTTP/1.")
}

/// Sends some bytes and reads exactly `length` bytes.
fn exchange(port: u16, request: &[u8], length: usize) -> Option<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(request).ok()?;
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn server_saying(reply: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the probe connects");
            stream.write_all(reply).expect("the probe reads");
        });
        port
    }

    #[test]
    fn only_the_right_answer_is_ready() {
        assert!(redis(server_saying(b"+PONG\r\n")));
        assert!(!redis(server_saying(b"-LOADING Redis is loading the dataset in memory\r\n")));
        assert!(http_ready(server_saying(b"HTTP/1.1 200 OK\r\n\r\n")));
        assert!(!http_ready(server_saying(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")));
        assert!(kafka(server_saying(&[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1])));
        assert!(!kafka(server_saying(&[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0])));
        assert!(database(server_saying(&[74, 0, 0, 0, 10])));
        assert!(!database(server_saying(&[74, 0, 0, 0, 0xff])));
    }
}
