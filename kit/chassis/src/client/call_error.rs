//! Why a call failed at a replica, and whether it may be retried.

use std::{error::Error, fmt};
use tonic::{ConnectError, TimeoutExpired, transport};

/// A call that failed without an answer of the replica.
#[derive(Debug)]
pub(super) enum CallError {
    /// The replica does not answer probes. The call may have taken effect.
    Silent,
    /// The connection failed, or there is none.
    Transport(transport::Error),
}

impl CallError {
    /// Returns whether the call failed because its deadline passed.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            CallError::Silent => false,
            CallError::Transport(error) => causes(error).any(|cause| cause.is::<TimeoutExpired>()),
        }
    }

    /// Returns whether the replica cannot have begun to handle the request, so that a retry is safe: no connection was
    /// made, or it ended while the request was queued, or the request came after the last stream of a GOAWAY (RFC 9113,
    /// 6.8 and 8.7).
    pub(super) fn was_never_handled(&self) -> bool {
        let CallError::Transport(error) = self else { return false };
        causes(error).any(|cause| {
            let is_unsent = cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
            cause.is::<ConnectError>() || is_unsent || cause.downcast_ref::<h2::Error>().is_some_and(is_refusal)
        })
    }
}

impl fmt::Display for CallError {
    /// Writes the error with all its causes: the transport itself says no more than "transport error".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Silent => f.write_str("the replica has fallen silent"),
            CallError::Transport(error) => {
                let chain: Vec<String> = causes(error).map(ToString::to_string).collect();
                f.write_str(&chain.join(": "))
            }
        }
    }
}

fn is_refusal(error: &h2::Error) -> bool {
    let is_leaving = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_leaving || is_refused)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
