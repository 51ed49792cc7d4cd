//! The socket of a connection: fails and is counted when its peer has vanished or does not read.

use super::{
    bounds::SOCKET_SEND_BYTES,
    life::Life,
    linger::Linger,
    metrics::{Metrics, Unread},
};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Sets the kernel's timeouts for a peer, and its send buffer.
pub(super) fn prepare(socket: &TcpStream, vanish_deadline: Duration) -> io::Result<()> {
    watch_peer(socket, vanish_deadline)?;
    SockRef::from(socket).set_send_buffer_size(SOCKET_SEND_BYTES)
}

/// Sets the kernel's timeouts for a peer.
pub(super) fn watch_peer(socket: &TcpStream, vanish_deadline: Duration) -> io::Result<()> {
    // Answers are small and written at once, so Nagle's algorithm would only delay them.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    // Keep-alive probes an idle peer; the user timeout bounds unacknowledged data.
    let (time, interval) = (vanish_deadline / 2, vanish_deadline / 4);
    let whole_seconds = |wait: Duration| Duration::from_secs(wait.as_secs().max(1));
    let keepalive = TcpKeepalive::new().with_time(whole_seconds(time)).with_interval(whole_seconds(interval));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(vanish_deadline))?;
    Ok(())
}

/// Sends what fits into the send buffer, without waiting.
pub(super) fn send_now(socket: &TcpStream, bytes: &[u8]) {
    // The peer may be gone already.
    let _ = SockRef::from(socket).send(bytes);
}

/// A socket whose writes fail when the peer takes nothing for too long.
pub(super) struct Socket {
    inner: TcpStream,
    life: Arc<Life>,
    stall_deadline: Duration,
    /// Runs while a write is blocked.
    stall: Option<(Pin<Box<Sleep>>, Unread)>,
    /// Whether the peer's end is waited for after every shutdown.
    lingers: bool,
    /// After the shutdown, if the peer's end is waited for.
    linger: Option<Linger>,
    metrics: Metrics,
}

impl Socket {
    pub(super) fn new(inner: TcpStream, life: Arc<Life>, stall_deadline: Duration, metrics: Metrics) -> Socket {
        Socket { inner, life, stall_deadline, stall: None, lingers: false, linger: None, metrics }
    }

    /// Waits for the peer's end after every shutdown. Only for trusted peers: with others it is waited for where
    /// [`Life::lingers`] says so.
    #[must_use]
    pub(super) fn lingering(self) -> Socket {
        Socket { lingers: true, ..self }
    }

    /// Counts a peer that has vanished: the kernel reports it once, to the next read or write.
    fn note<T>(&self, outcome: &io::Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.metrics.count_cut("vanished");
        }
    }

    /// Applies the stall deadline to a blocked write.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = outcome {
            self.stall = None;
            self.note(&outcome);
            return Poll::Ready(outcome);
        }
        let (deadline, metrics) = (self.stall_deadline, &self.metrics);
        let (stall, _) = self.stall.get_or_insert_with(|| (Box::pin(sleep(deadline)), metrics.wait_for_reader()));
        ready!(stall.as_mut().poll(cx));
        self.stall = None;
        self.metrics.count_cut("stalled");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.life.arrived();
        }
        if let Poll::Ready(outcome) = &outcome {
            self.note(outcome);
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.in_time(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.in_time(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let outcome = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.in_time(cx, outcome))?;
            if !this.lingers && !this.life.lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::begin);
        linger.poll_end(&mut this.inner, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::{HttpBounds, http::bounds::MAX_LINGER};
    use futures_util::future::join_all;
    use std::{io::Write, thread};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::{Instant, timeout},
    };

    /// Returns a connection of the server, and its client.
    #[cfg(target_os = "linux")]
    async fn connection(bounds: &HttpBounds) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        prepare(&socket, bounds.vanish_deadline).unwrap();
        (Socket::new(socket, Life::begin(), bounds.stall_deadline, Metrics::of_http("test")), client)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_peer_that_vanishes_without_a_word_ends_its_connection() {
        let deadline = Duration::from_secs(3);
        let at_last = deadline - Duration::from_millis(500);
        let ends = [None, Some(Duration::ZERO), Some(at_last)].map(|sent_after| async move {
            let bounds = HttpBounds { vanish_deadline: deadline, ..HttpBounds::default() };
            let (mut socket, client) = connection(&bounds).await;
            crate::for_tests::vanish(&client);
            let end = async {
                if let Some(silence) = sent_after {
                    sleep(silence).await;
                    // On a slow machine the end may be here already.
                    socket.write_all(b"news").await?;
                }
                timeout(deadline * 2, socket.read(&mut [0; 1])).await.expect("the connection ends")
            };
            assert_eq!(end.await.unwrap_err().kind(), io::ErrorKind::TimedOut, "sent after {sent_after:?}");
        });
        join_all(ends).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut_before_it_has_vanished_to_the_kernel() {
        let shortest = HttpBounds { vanish_deadline: Duration::ZERO, ..HttpBounds::default() };
        let bounds = shortest.with_stall_deadline(Duration::from_secs(2));
        let (mut socket, _client) = connection(&bounds).await;
        let (chunk, begun) = (vec![0_u8; 64 * 1024], Instant::now());
        let error = loop {
            if let Err(error) = socket.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.to_string(), "the peer does not read");
        assert!(begun.elapsed() >= bounds.stall_deadline, "{:?}", begun.elapsed());
    }

    /// Writes on after the server has ended the connection, and reads the answer. Returns how long the server waits for
    /// the client's end.
    #[cfg(target_os = "linux")]
    async fn writes_on_to_a_server_that_ends() -> io::Result<Duration> {
        let (socket, mut client) = connection(&HttpBounds::default()).await;
        let mut socket = socket.lingering();
        client.write_all(b"request").await?;
        let served = tokio::spawn(async move {
            socket.write_all(b"answer").await?;
            socket.shutdown().await
        });
        for _ in 0..5 {
            client.write_all(b"and another").await?;
            sleep(Duration::from_millis(10)).await;
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"answer");
        let ended = Instant::now();
        drop(client);
        served.await.unwrap()?;
        Ok(ended.elapsed())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_still_sends_at_the_end_gets_the_answer_and_no_reset() {
        let mut outcome = writes_on_to_a_server_that_ends().await;
        // A machine that stands still takes longer than the server waits.
        for _ in 0..3 {
            if !matches!(outcome, Ok(wait) if wait < MAX_LINGER / 2) {
                outcome = writes_on_to_a_server_that_ends().await;
            }
        }
        assert!(outcome.unwrap() < MAX_LINGER / 2, "it ends with the peer");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_never_stops_sending_is_not_waited_for_without_end() {
        let (socket, client) = connection(&HttpBounds::default()).await;
        let mut socket = socket.lingering();
        let mut client = client.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        let sender = thread::spawn(move || {
            // More at a time than the server reads before it yields.
            while client.write_all(&[0; 1 << 20]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        timeout(MAX_LINGER * 4, socket.shutdown()).await.expect("it ends").unwrap();
        assert!(begun.elapsed() >= MAX_LINGER, "{:?}", begun.elapsed());
        drop(socket);
        sender.join().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_gives_up_a_peer_that_has_vanished_within_half_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        prepare(&socket, HttpBounds::default().vanish_deadline).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        let (idle, unacknowledged) =
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_user_timeout().unwrap().unwrap());
        assert!(HttpBounds::default().stall_deadline < unacknowledged, "{unacknowledged:?}");
        assert!(idle < unacknowledged, "{idle:?} {unacknowledged:?}");
        // Data that is sent right before the end starts the wait anew.
        assert!(unacknowledged * 2 < Duration::from_secs(28), "{unacknowledged:?}");
    }
}
