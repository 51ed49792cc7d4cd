//! Errors of Redis and of its replies.

use crate::Memory;
use deadpool_redis::PoolError;
use redis::{ErrorKind, ServerErrorKind};
use stampede_status::{Problem, Reason};
use std::time::Duration;

/// Retry delay for a server with too little memory left: somebody has to make room first.
const ROOM_AFTER: Duration = Duration::from_secs(60);

/// A failure of Redis, or a reply that no script gives. Cheap to clone: a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// The server, or the connection to it.
    #[error("redis: {0}")]
    Server(#[from] redis::RedisError),
    /// No connection could be had.
    #[error("redis: no connection: {0}")]
    Pool(String),
    /// No answer in time. Whether the script ran is not known.
    #[error("redis: no answer within {0:?}")]
    TimedOut(Duration),
    /// A reply that the script never gives: program and script do not fit.
    #[error("redis: {script} replied something unexpected: {reply}")]
    Reply {
        /// Name of the script.
        script: &'static str,
        /// What it replied.
        reply: String,
    },
    /// A server that is set up in a way in which promises can't be kept.
    #[error("{0}")]
    Refused(String),
    /// A URL that names no Redis.
    #[error("redis: {0}")]
    Url(String),
    /// A server with too little memory left for a new event or campaign.
    #[error("redis: {} of {} bytes of memory are in use, which leaves no room for more", .0.used_bytes, .0.max_bytes)]
    Filled(Memory),
}

impl RedisError {
    /// Returns the error for a reply that `script` never gives.
    pub fn reply(script: &'static str, reply: impl std::fmt::Debug) -> Self {
        Self::Reply { script, reply: format!("{reply:?}") }
    }

    /// Whether the server was not reached or did not answer, so nothing is known to be wrong with the request.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Server(_) | Self::Pool(_) | Self::TimedOut(_) => true,
            Self::Reply { .. } | Self::Refused(_) | Self::Url(_) | Self::Filled(_) => false,
        }
    }

    /// Whether the user of the connection may not do this, which waiting does not change.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Server(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm))
    }
}

impl From<PoolError> for RedisError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Server(error),
            other => Self::Pool(other.to_string()),
        }
    }
}

impl From<RedisError> for Problem {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Filled(_) => Self::new(Reason::Overloaded, "redis has too little memory left for what is new")
                .retry_after(ROOM_AFTER)
                .internal(error),
            error if error.is_unreachable() => Self::unavailable("redis", error),
            error => Self::internal_error(error),
        }
    }
}
