//! Lingering close: what the peer sends after the end is read and dropped.
//!
//! A socket that is closed while data of its peer are unread resets the connection. A peer that was about to write then
//! fails at once, and never reads the answers that had arrived: calls fail that were answered in full. A connection
//! that ends by its age has such a peer whenever it is busy.

use super::bounds::MAX_LINGER;
use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// Bytes that are read, and dropped, at a time.
const SINK_BYTES: usize = 4096;

/// The wait for the peer's end, after our own.
pub(super) struct Linger {
    deadline: Pin<Box<Sleep>>,
}

impl Linger {
    pub(super) fn begin() -> Linger {
        Linger { deadline: Box::pin(sleep(MAX_LINGER)) }
    }

    /// Drops what arrives, until the peer ends the connection or has been waited for long enough.
    pub(super) fn poll_end(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [MaybeUninit::<u8>::uninit(); SINK_BYTES];
        // A timer that is polled after a long read is not ready before the task has yielded.
        while Instant::now() < self.deadline.deadline() {
            let mut buffer = ReadBuf::uninit(&mut sink);
            match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.deadline.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}
