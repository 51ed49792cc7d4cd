//! The session of a caller: it ends when their token expires or their login is revoked. A request is over before that
//! matters; a stream is not.

use super::revoked::Revoked;
use futures_util::{Stream, StreamExt, future::BoxFuture};
use stampede_status::{Problem, Reason};
use stampede_vocab::Timestamp;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::sleep;
use tonic::Status;

/// The session of a checked token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    login: String,
    expires_at: Timestamp,
}

impl Session {
    /// Returns the session of a token of `login` that expires at `exp`, in seconds since the epoch.
    pub fn new(login: String, exp: i64) -> Self {
        Self { login, expires_at: Timestamp::from_micros(exp.saturating_mul(1_000_000)) }
    }

    /// Returns the name by which its tokens are revoked.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// Returns when its token expires, in seconds since the epoch.
    pub fn exp(&self) -> i64 {
        self.expires_at.micros() / 1_000_000
    }

    /// Waits until it is over. Returns the reason.
    pub async fn end(self, revoked: Arc<Revoked>) -> Problem {
        tokio::select! {
            () = sleep(self.expires_at.since(Timestamp::now())) => {
                Problem::new(Reason::TokenExpired, "the access token has expired, and the stream ends with it")
            }
            () = revoked.wait_revoked(&self.login) => login_ended(),
        }
    }
}

/// Returns the problem for a caller whose login has ended.
pub fn login_ended() -> Problem {
    Problem::new(Reason::TokenRevoked, "the login has ended: begin with a new one")
}

/// Messages until an end, whose problem comes last.
pub struct UntilEnd<S> {
    messages: S,
    end: BoxFuture<'static, Problem>,
    is_over: bool,
}

impl<S> UntilEnd<S> {
    /// Passes on `messages` until `end`.
    pub fn new(messages: S, end: BoxFuture<'static, Problem>) -> Self {
        Self { messages, end, is_over: false }
    }
}

impl<S, T> Stream for UntilEnd<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(problem) = self.end.as_mut().poll(cx) {
            self.is_over = true;
            return Poll::Ready(Some(Err(problem.into())));
        }
        self.messages.poll_next_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future, stream};

    #[tokio::test]
    async fn messages_go_on_until_the_session_is_over_which_is_said_once() {
        let (over, end) = tokio::sync::oneshot::channel::<()>();
        let messages = stream::iter([Ok(1)]).chain(stream::pending());
        let end = end.map(|_| login_ended()).boxed();
        let mut all = UntilEnd::new(messages, end);
        assert_eq!(all.next().await.unwrap().unwrap(), 1);
        over.send(()).unwrap();
        let status = all.next().await.unwrap().unwrap_err();
        assert_eq!(Problem::from_status(&status).reason(), Reason::TokenRevoked);
        assert!(all.next().await.is_none());
    }

    #[tokio::test]
    async fn messages_that_end_by_themselves_end_the_stream() {
        let messages = stream::iter([Ok::<_, Status>(1)]);
        let all: Vec<_> = UntilEnd::new(messages, future::pending().boxed()).collect().await;
        assert_eq!(all.len(), 1);
    }
}
