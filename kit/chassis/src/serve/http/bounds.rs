//! All limits of a connection. docs/security.md has the reasons for the defaults.

use crate::peer::Networks;
use std::time::Duration;

/// Largest request head, in bytes.
pub(super) const HEAD_LIMIT: usize = 32 * 1024;
/// Most headers of an HTTP/1 request.
pub(super) const MAX_HEADERS: usize = 64;
/// Flow-control window of an HTTP/2 stream, in bytes: as large as the largest body.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Flow-control window of an HTTP/2 connection, in bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Send buffer of an HTTP/2 stream, in bytes.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a body that are passed on at a time. The rest counts as not written yet.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;
/// Kernel send buffer of a connection, in bytes: small, so that a stalled reader is noticed soon.
pub(super) const SOCKET_SEND_BYTES: usize = 256 * 1024;
/// Longest wait for the peer to end a connection that this process has ended.
pub(super) const MAX_LINGER: Duration = Duration::from_secs(2);

/// Margin of the kernel's time-out over the stall deadline: to the kernel a reader with a closed window has vanished
/// too.
const KERNEL_WAITS_LONGER: Duration = Duration::from_secs(2);

/// Limits on the connections of one HTTP server.
#[derive(Clone, Debug)]
pub struct HttpBounds {
    /// Name of the server in metrics.
    pub listener: &'static str,
    /// Most connections. Over it, the longest idle ones are closed; if there are none, new ones are refused.
    pub max_connections: usize,
    /// Most connections of one address, without effect if it is not less than `max_connections`. Trusted proxies are
    /// exempt.
    pub max_connections_of_address: usize,
    /// Proxies whose `x-forwarded-for` is trusted.
    pub trusted_proxies: Networks,
    /// Longest wait for a request head: from the start of the connection, or from the first byte of the head.
    pub head_deadline: Duration,
    /// Longest idle time of a connection.
    pub idle_deadline: Duration,
    /// Age at which a connection is asked to end, so that clients spread over new replicas; less up to a tenth at
    /// random.
    pub max_age: Duration,
    /// Longest wait for a connection to end after it was asked to, while it has no request.
    pub leave_deadline: Duration,
    /// Longest time in which a reader takes nothing of its answer. See [`HttpBounds::with_stall_deadline`].
    pub stall_deadline: Duration,
    /// Longest time that sent data, or a keep-alive probe of the kernel, stays unacknowledged before the peer counts as
    /// gone. Data sent to a peer that was silent for nearly as long already starts the wait anew, so it may take twice
    /// that.
    pub vanish_deadline: Duration,
    /// Interval of HTTP/2 pings, and timeout of their answers.
    pub ping_interval: Duration,
    /// Most concurrent requests of an HTTP/2 connection, server-sent events included.
    pub max_http2_streams: u32,
}

impl Default for HttpBounds {
    fn default() -> HttpBounds {
        HttpBounds {
            listener: "public",
            max_connections: 32_768,
            max_connections_of_address: 4_096,
            trusted_proxies: Networks::default(),
            head_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
            leave_deadline: Duration::from_secs(5),
            stall_deadline: Duration::from_secs(10),
            vanish_deadline: Duration::from_secs(12),
            ping_interval: Duration::from_secs(10),
            max_http2_streams: 128,
        }
    }
}

impl HttpBounds {
    /// Sets the stall deadline. A long one also delays the detection of vanished peers.
    #[must_use]
    pub fn with_stall_deadline(self, stall_deadline: Duration) -> HttpBounds {
        let vanish_deadline = self.vanish_deadline.max(stall_deadline + KERNEL_WAITS_LONGER);
        HttpBounds { stall_deadline, vanish_deadline, ..self }
    }

    /// Returns the limits of a service's gRPC port, which the processes of a mesh call. They may all come from one
    /// address.
    pub(crate) fn of_grpc() -> HttpBounds {
        HttpBounds {
            listener: "grpc",
            max_connections: 4_096,
            max_connections_of_address: 4_096,
            ..HttpBounds::default()
        }
    }

    /// Returns the limits of the admin port, which a few machines call.
    pub(crate) fn of_admin() -> HttpBounds {
        HttpBounds { listener: "admin", max_connections: 512, max_connections_of_address: 256, ..HttpBounds::default() }
    }
}
