//! The connections of the crowd: one for each watcher over HTTP/1, one for many over HTTP/2.
//!
//! To a gateway of this machine they come from many addresses, as a crowd does, so that neither its shares of one
//! address nor the ports of one are the limit.

use crate::crowd::MAX_WAIT;
use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Streams on one HTTP/2 connection: as many as browsers open.
const STREAMS: usize = 100;
/// Watchers from one address.
const FROM_ONE_ADDRESS: usize = 500;
/// Open files beside the connections.
const OTHER_FILES: usize = 64;

/// The connections of the crowd to the gateway.
pub struct Lines {
    pub gateway: SocketAddr,
    /// Whether each watcher has a connection of its own.
    pub http1: bool,
}

/// The connection of one watcher.
pub enum Line {
    Http1(SocketAddr, http1::SendRequest<Empty<Bytes>>),
    Http2(SocketAddr, http2::SendRequest<Empty<Bytes>>),
}

impl Lines {
    /// Returns the open files that a process with so many watchers needs, of which a gateway gives seven eighths to
    /// connections.
    pub fn files(&self, watchers: usize) -> u64 {
        let connections = if self.http1 { watchers } else { watchers.div_ceil(STREAMS) };
        (connections.div_ceil(7) * 8 + OTHER_FILES) as u64
    }

    /// Connects the watchers from this one on. Returns a line for each that the connection has room for.
    pub async fn connect(&self, watcher: usize) -> anyhow::Result<Vec<Line>> {
        let socket = timeout(MAX_WAIT, self.socket(watcher)).await.context("the gateway takes no connection")?;
        let io = TokioIo::new(socket.context("cannot connect to the gateway")?);
        if self.http1 {
            let (line, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            return Ok(vec![Line::Http1(self.gateway, line)]);
        }
        let (line, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok((0..STREAMS).map(|_| Line::Http2(self.gateway, line.clone())).collect())
    }

    async fn socket(&self, watcher: usize) -> io::Result<TcpStream> {
        let socket = match self.gateway.ip() {
            IpAddr::V4(address) if address.is_loopback() => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::from((address_of(watcher), 0)))?;
                socket.connect(self.gateway).await?
            }
            _ => TcpStream::connect(self.gateway).await?,
        };
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

impl Line {
    /// Returns the answer to a GET, whose body is still to come.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let answer = match self {
            Self::Http1(gateway, line) => {
                let request = Request::get(path).header(header::HOST, gateway.to_string()).body(Empty::new())?;
                timeout(MAX_WAIT, line.send_request(request)).await
            }
            Self::Http2(gateway, line) => {
                let request = Request::get(format!("http://{gateway}{path}")).body(Empty::new())?;
                timeout(MAX_WAIT, line.send_request(request)).await
            }
        };
        Ok(answer.context("a stream does not open")??)
    }
}

/// Returns an address of this machine.
fn address_of(watcher: usize) -> Ipv4Addr {
    let number = watcher / FROM_ONE_ADDRESS % 250;
    Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number).expect("less than 250"))
}
