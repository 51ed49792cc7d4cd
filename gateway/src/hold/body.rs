//! Reads a body that arrives in parts, with a deadline for each part and for the whole. Its bytes count until it is
//! complete.
//!
//! A body that arrives whole, as nearly all do, is never counted, so slow bodies of others cannot cause its refusal.

use super::pool::Permit;
use crate::bounds::BODY_DEADLINE;
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use stampede_status::{Problem, Reason};
use std::{
    error::Error,
    io::{self, ErrorKind},
    iter,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Reads the body, of at most `limit` bytes. `take` and `grow` count the bytes of an incomplete one.
pub async fn read(
    body: Body,
    limit: usize,
    progress: Duration,
    take: impl Fn(usize) -> Result<Permit, Problem>,
    grow: impl Fn(&mut Permit, usize) -> Result<(), Problem>,
) -> Result<Bytes, Problem> {
    let mut body = Limited::new(body, limit);
    let begin = Instant::now();
    let end = begin + BODY_DEADLINE;
    let first = next(&mut body, limit, end.min(begin + progress)).await?.unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut permit = take(first.len().max(1))?;
    let mut whole = BytesMut::from(&first[..]);
    while let Some(part) = next(&mut body, limit, end.min(Instant::now() + progress)).await? {
        grow(&mut permit, part.len())?;
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// Returns the next bytes; `None` at the end.
async fn next(body: &mut Limited<Body>, limit: usize, deadline: Instant) -> Result<Option<Bytes>, Problem> {
    loop {
        let late = |_| Problem::new(Reason::BodyTimeout, "the body of the request did not arrive in time");
        match timeout_at(deadline, body.frame()).await.map_err(late)? {
            None => return Ok(None),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                let detail = format!("the body may have {limit} bytes");
                return Err(Problem::new(Reason::BodyTooLarge, detail).meta("limit_bytes", limit));
            }
            Some(Err(error)) => return Err(unreadable(&*error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Returns why the next bytes cannot be read: they are not chunks as HTTP/1.1 has them, which the server reports as
/// invalid, or the body broke off.
fn unreadable(error: &(dyn Error + 'static)) -> Problem {
    let mut causes = iter::successors(Some(error), |&error| error.source());
    let is_malformed = causes.any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| {
            // TLS calls its own failures invalid data too.
            let is_of_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData) && !is_of_tls
        })
    });
    if is_malformed {
        return Problem::new(Reason::MalformedJson, "the chunks of the body are not as HTTP has them");
    }
    Problem::new(Reason::Cancelled, "the body of the request broke off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    type Part = Result<&'static str, std::io::Error>;

    /// Returns a body that arrives in parts.
    fn slow(parts: Vec<&'static str>, every: Duration) -> Body {
        Body::from_stream(stream::iter(parts).then(move |part| async move {
            tokio::time::sleep(every).await;
            Part::Ok(part)
        }))
    }

    async fn read_uncounted(body: Body) -> Result<Bytes, Reason> {
        let none = |_| Err(Problem::new(Reason::Overloaded, "none is counted"));
        let grow = |_: &mut Permit, _| Ok(());
        let outcome = read(body, 10, Duration::from_secs(2), none, grow).await;
        outcome.map_err(|problem| problem.reason())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_go_on_arriving_is_given_up() {
        let late = slow(vec!["a"], Duration::from_secs(3));
        assert_eq!(read_uncounted(late).await, Err(Reason::BodyTimeout));
    }

    #[tokio::test]
    async fn one_in_bad_chunks_is_malformed_and_one_that_breaks_off_is_not() {
        for (kind, expected) in [
            (ErrorKind::InvalidInput, Reason::MalformedJson),
            (ErrorKind::InvalidData, Reason::MalformedJson),
            (ErrorKind::UnexpectedEof, Reason::Cancelled),
            (ErrorKind::ConnectionReset, Reason::Cancelled),
        ] {
            let body = Body::from_stream(stream::iter([Part::Err(kind.into())]));
            assert_eq!(read_uncounted(body).await, Err(expected), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_arrives_in_parts_is_counted_and_one_that_is_whole_is_not() {
        let parts = slow(vec!["a", "b"], Duration::from_secs(1));
        assert_eq!(read_uncounted(parts).await, Err(Reason::Overloaded));
        assert_eq!(read_uncounted(Body::from("ab")).await, Ok(Bytes::from("ab")));
        assert_eq!(read_uncounted(Body::empty()).await, Ok(Bytes::new()));
        assert_eq!(read_uncounted(Body::from("12345678901")).await, Err(Reason::BodyTooLarge));
    }
}
