//! Every bound of a connection, in one place. docs/security.md has the reasons for the defaults.

use crate::peer::Networks;
use std::time::Duration;

/// Largest head of a request, in bytes.
pub(super) const HEAD_LIMIT: usize = 32 * 1024;
/// Most headers of a request over HTTP/1.
pub(super) const MAX_HEADERS: usize = 64;
/// Window for the body of one request over HTTP/2, in bytes: as much as a body may have.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Window for all bodies of one HTTP/2 connection, in bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of one answer that wait in an HTTP/2 connection for its socket.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a body that are handed on at a time. What is behind them counts as not yet written.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes that the kernel keeps of what a connection has not sent, so that it shows soon who does not read.
pub(super) const SOCKET_SEND_BYTES: usize = 256 * 1024;
/// How long a connection that was asked to leave, and answers nothing, is waited for.
pub(super) const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// So much longer the kernel waits for a peer than a reader may take nothing: to it a reader whose window is closed has
/// vanished too.
const KERNEL_WAITS_LONGER: Duration = Duration::from_secs(2);

/// What the clients of one HTTP server can hold on to, and for how long.
#[derive(Clone, Debug)]
pub struct HttpBounds {
    /// Name of the server in metrics.
    pub listener: &'static str,
    /// Connections at a time. Over it, those that have been idle for longest are closed, then newcomers.
    pub max_connections: usize,
    /// Connections at a time of one address; it has no bound of its own if that is no less than all. Trusted proxies
    /// may have all.
    pub max_connections_of_address: usize,
    /// Proxies whose word about the address of a client is taken.
    pub trusted_proxies: Networks,
    /// Longest wait for the head of a request: from the beginning of the connection, or from its first byte.
    pub head_deadline: Duration,
    /// How long a connection may be without a request.
    pub idle_deadline: Duration,
    /// Age at which a connection is asked to end, so that new ones spread over replicas; less up to a tenth by chance.
    pub max_age: Duration,
    /// How long a reader may take nothing of its answer before it is cut off. See [`HttpBounds::with_stall_deadline`].
    pub stall_deadline: Duration,
    /// How long a peer may leave what was sent to it unacknowledged, a question of its kernel included, before it
    /// counts as gone. What is sent to one that was silent for nearly as long already, such as the time on a stream, is
    /// waited for anew: so it is twice that until the last one is given up.
    pub vanish_deadline: Duration,
    /// Interval of HTTP/2 pings; an answer may take as long again.
    pub ping_interval: Duration,
    /// Requests at a time on one HTTP/2 connection, streams of events included.
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
            stall_deadline: Duration::from_secs(10),
            vanish_deadline: Duration::from_secs(12),
            ping_interval: Duration::from_secs(10),
            max_http2_streams: 128,
        }
    }
}

impl HttpBounds {
    /// The same with this deadline for readers. If it is long, who has vanished is waited for longer too.
    #[must_use]
    pub fn with_stall_deadline(self, stall_deadline: Duration) -> HttpBounds {
        let vanish_deadline = self.vanish_deadline.max(stall_deadline + KERNEL_WAITS_LONGER);
        HttpBounds { stall_deadline, vanish_deadline, ..self }
    }

    /// Those of a service's gRPC port, which the processes of a mesh call. They may all come from one address.
    pub(crate) fn of_grpc() -> HttpBounds {
        HttpBounds {
            listener: "grpc",
            max_connections: 4_096,
            max_connections_of_address: 4_096,
            ..HttpBounds::default()
        }
    }

    /// Those of the admin port, which a few machines call.
    pub(crate) fn of_admin() -> HttpBounds {
        HttpBounds { listener: "admin", max_connections: 512, max_connections_of_address: 256, ..HttpBounds::default() }
    }
}
