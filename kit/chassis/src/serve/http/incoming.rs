//! Accepts the connections of a gRPC server for tonic: limits their number, and closes those that send nothing.
//!
//! Once a connection speaks HTTP/2, the server limits it by pings, age and streams. Until its preface has arrived the
//! server has no timeout, and would keep it for ever.

use super::{
    accept,
    bounds::HttpBounds,
    connections::{Connections, Permit},
    life::Exchange,
    metrics::Metrics,
    socket::{self, Socket},
    within_open_files,
};
use futures_util::{Stream, stream};
use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Length of the HTTP/2 connection preface (RFC 9113 3.4).
const PREFACE_BYTES: usize = 24;

/// Returns a stream of the connections that get a permit. Those whose preface is incomplete end at `close`.
pub(crate) fn incoming(
    listener: TcpListener,
    bounds: HttpBounds,
    close: CancellationToken,
) -> impl Stream<Item = io::Result<Admitted>> {
    let acceptor = Acceptor::new(bounds, close);
    stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (socket, address) = accept(&listener).await;
            if let Some(admitted) = acceptor.admit(socket, address.ip()) {
                return Some((Ok(admitted), (listener, acceptor)));
            }
        }
    })
}

/// Issues permits to connections.
struct Acceptor {
    connections: Arc<Connections>,
    bounds: Arc<HttpBounds>,
    metrics: Metrics,
    close: CancellationToken,
}

impl Acceptor {
    fn new(bounds: HttpBounds, close: CancellationToken) -> Acceptor {
        let bounds = Arc::new(within_open_files(bounds));
        let metrics = Metrics::of_grpc(bounds.listener);
        Acceptor { connections: Connections::new(Arc::clone(&bounds)), bounds, metrics, close }
    }

    /// Returns the connection with its permit. Without one it is closed: HTTP/2 has no answer before a request.
    fn admit(&self, socket: TcpStream, address: IpAddr) -> Option<Admitted> {
        if let Err(error) = socket::watch_peer(&socket, self.bounds.vanish_deadline) {
            tracing::debug!(error.cause = %error, "connection lost before its first call");
            return None;
        }
        let permit = self.connections.admit(address).inspect_err(|&bound| self.metrics.count_cut(bound)).ok()?;
        let preface = PendingPreface {
            missing: PREFACE_BYTES,
            deadline: Box::pin(sleep(self.bounds.head_deadline)),
            cut: Box::pin(permit.life.cut.clone().cancelled_owned()),
            close: Box::pin(self.close.clone().cancelled_owned()),
        };
        Some(Admitted {
            socket: Socket::new(socket, Arc::clone(&permit.life), self.bounds.stall_deadline, self.metrics.clone())
                .lingering(),
            preface: Some(preface),
            metrics: self.metrics.clone(),
            _busy: None,
            permit,
        })
    }
}

/// A connection with its permit.
pub(crate) struct Admitted {
    socket: Socket,
    /// Until the whole preface has arrived.
    preface: Option<PendingPreface>,
    metrics: Metrics,
    /// After the preface: the connection is not closed for a new one.
    _busy: Option<Exchange>,
    permit: Permit,
}

/// Wait for the preface of a connection.
struct PendingPreface {
    /// Bytes of the preface that have not arrived.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    /// Cancelled when the connection is closed for a new one.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Cancelled when the process drains.
    close: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl PendingPreface {
    /// Returns the name of the limit that ends the connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready("head");
        }
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready("full");
        }
        self.close.as_mut().poll(cx).map(|()| "leaving")
    }
}

impl AsyncRead for Admitted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let Some(preface) = &mut this.preface else { return outcome };
        preface.missing = preface.missing.saturating_sub(buffer.filled().len() - before);
        if preface.missing == 0 {
            this.preface = None;
            this._busy = Some(this.permit.life.begin_request(true));
            return outcome;
        }
        if outcome.is_ready() {
            // The caller reads on at once.
            return outcome;
        }
        let bound = ready!(preface.poll_end(cx));
        this.metrics.count_cut(bound);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection said nothing")))
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The caller is authenticated by metadata, so no address is passed on.
impl Connected for Admitted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use std::{pin::pin, time::Duration};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// Longer than what must come takes, and shorter than the deadline of a preface.
    const SOON: Duration = Duration::from_secs(8);

    async fn ends(silent: &mut Admitted) -> bool {
        matches!(timeout(SOON, silent.read(&mut [0; 64])).await, Ok(Err(_)))
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_silent_make_room_and_those_that_speak_do_not() {
        let bounds = HttpBounds { max_connections: 1, max_connections_of_address: 1, ..HttpBounds::of_grpc() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = pin!(incoming(listener, bounds, CancellationToken::new()));
        let _silent_client = TcpStream::connect(address).await.unwrap();
        let mut silent = incoming.next().await.unwrap().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut speaks = incoming.next().await.unwrap().unwrap();
        assert!(ends(&mut silent).await);
        client.write_all(PREFACE).await.unwrap();
        speaks.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut rest = [0; 1];
        let closed = tokio::select! {
            _ = incoming.next() => panic!("there is no place"),
            read = timeout(SOON, refused.read(&mut rest)) => read.unwrap(),
        };
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }

    #[tokio::test]
    async fn who_has_said_half_of_the_preface_does_not_hold_up_a_process_that_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let close = CancellationToken::new();
        let mut incoming = pin!(incoming(listener, HttpBounds::of_grpc(), close.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut silent = incoming.next().await.unwrap().unwrap();
        let half = &PREFACE[..PREFACE_BYTES / 2];
        client.write_all(half).await.unwrap();
        let mut read = vec![0; half.len()];
        silent.read_exact(&mut read).await.unwrap();
        assert_eq!(read, half);
        close.cancel();
        assert!(ends(&mut silent).await);
    }
}
