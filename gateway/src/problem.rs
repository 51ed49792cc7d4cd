//! The answers to failures in the gateway or behind it, all in one format.
//!
//! A [`Refusal`] becomes an answer within the span of its request, so that the log lines of the problem have the trace
//! id.

use crate::trace_id::TraceId;
use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, header};
use stampede_status::{Problem, Reason};

/// Header with the media types that a POST may have.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// An answer that is a problem.
#[derive(Debug)]
pub struct Refusal {
    problem: Problem,
    /// Header with the methods or media types that are accepted.
    offer: Option<(HeaderName, HeaderValue)>,
    /// Whether the request had credentials.
    presented: bool,
}

impl Refusal {
    /// Refuses a method that the path does not have.
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        let methods = allow.to_str().unwrap_or_default().to_owned();
        let problem = Problem::new(Reason::MethodNotAllowed, format!("this path takes {methods}"));
        Self { problem, offer: Some((header::ALLOW, allow)), presented: false }
    }

    /// Refuses a request to the path of a gRPC method that is no call of it, with the accepted media types.
    pub fn no_call(accept_post: HeaderValue) -> Self {
        let media_types = accept_post.to_str().unwrap_or_default().to_owned();
        let problem = Problem::new(Reason::UnsupportedMediaType, format!("the body must be one of {media_types}"));
        Self { problem, offer: Some((ACCEPT_POST, accept_post)), presented: false }
    }

    /// Sets whether the request had credentials. If so, the challenge says that they are invalid.
    #[must_use]
    pub fn presented(mut self, presented: bool) -> Self {
        self.presented = presented;
        self
    }

    /// Returns the answer to the request of this trace.
    pub fn into_response(self, trace_id: &TraceId) -> Response {
        let Self { problem, offer, presented } = self;
        let mut response = Response::new(Body::from(problem.to_json(trace_id.as_str()).to_string()));
        *response.status_mut() = problem.http();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // Some statuses are cacheable by default.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = offer {
            headers.insert(name, value);
        }
        if let Some(delay) = problem.retry_delay() {
            // The header has whole seconds; the body has milliseconds.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = challenge(problem.reason(), presented) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: spread(problem), offer: None, presented: false }
    }
}

/// Adds jitter to the default retry delay of a problem. Otherwise all clients that are refused together, as during an
/// outage, would return together.
pub fn spread(problem: Problem) -> Problem {
    match problem.retry_delay() {
        Some(wait) if problem.reason().default_retry() == Some(wait) => {
            problem.retry_after(wait.mul_f64(rand::random_range(1.0..3.0)))
        }
        _ => problem,
    }
}

/// Spreads those who share a refusal: its retry delay was drawn once for all of them, and is drawn again for each. One
/// that the service has named is longer, and kept.
pub fn apart(problem: Problem) -> Problem {
    match problem.reason().default_retry() {
        Some(default) if problem.retry_delay().is_some_and(|wait| wait <= 3 * default) => {
            spread(problem.retry_after(default))
        }
        _ => problem,
    }
}

/// Returns the `WWW-Authenticate` header for a bad bearer token (RFC 6750). Webhook signatures are no bearer tokens.
fn challenge(reason: Reason, presented: bool) -> Option<HeaderValue> {
    match reason {
        Reason::Unauthenticated if !presented => Some(HeaderValue::from_static(r#"Bearer realm="stampede""#)),
        Reason::Unauthenticated | Reason::TokenExpired | Reason::TokenReused | Reason::TokenRevoked => {
            Some(HeaderValue::from_static(r#"Bearer realm="stampede", error="invalid_token""#))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn written(refusal: Refusal) -> Response {
        refusal.into_response(&TraceId::of_test())
    }

    #[test]
    fn the_status_and_headers_follow_from_the_reason() {
        for (reason, status, header) in [
            (Reason::SoldOut, 409, None),
            (Reason::Internal, 500, None),
            (Reason::InvalidSignature, 401, None),
            (Reason::Unauthenticated, 401, Some(("www-authenticate", r#"Bearer realm="stampede""#))),
            (
                Reason::TokenExpired,
                401,
                Some(("www-authenticate", r#"Bearer realm="stampede", error="invalid_token""#)),
            ),
            (Reason::Throttled, 429, Some(("retry-after", "7"))),
            (Reason::Unavailable, 503, Some(("retry-after", "7"))),
        ] {
            let problem = Problem::new(reason, "what happened");
            let says_when = matches!(reason, Reason::Throttled | Reason::Unavailable);
            let problem = if says_when { problem.retry_after(Duration::from_secs(7)) } else { problem };
            let response = written(problem.into());
            assert_eq!(response.status(), status, "{reason}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert_eq!(response.headers()["cache-control"], "no-store");
            let of_all = ["content-type", "cache-control"];
            let extra = response.headers().iter().filter(|(name, _)| !of_all.contains(&name.as_str()));
            let extra: Vec<_> = extra.collect();
            let extra = extra.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).next();
            assert_eq!(extra, header, "{reason}");
        }
    }

    #[test]
    fn a_token_that_was_presented_is_said_to_be_invalid() {
        let refusal = Refusal::from(Problem::new(Reason::Unauthenticated, "the access token is not valid"));
        let response = written(refusal.presented(true));
        assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="stampede", error="invalid_token""#);
    }

    #[test]
    fn a_retry_is_given_in_whole_seconds_rounded_up() {
        let problem = Problem::new(Reason::Throttled, "slow down").retry_after(Duration::from_millis(2_001));
        assert_eq!(written(problem.into()).headers()["retry-after"], "3");
    }

    #[test]
    fn those_who_are_refused_at_once_get_different_times() {
        let mut waits: Vec<_> = (0..50)
            .map(|_| Refusal::from(Problem::unavailable("the token store", "redis is away")).problem.retry_delay())
            .collect();
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 10, "{waits:?}");
    }

    #[test]
    fn who_shares_a_refusal_comes_again_at_a_time_of_their_own_within_the_bounds_of_all() {
        let second = Duration::from_secs(1);
        let shared = spread(Problem::new(Reason::Unavailable, "away"));
        let waits: Vec<Duration> = (0..50).map(|_| apart(shared.clone()).retry_delay().unwrap()).collect();
        assert!(waits.iter().all(|wait| (second..=3 * second).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        let named = Problem::new(Reason::Unavailable, "drains").retry_after(9 * second);
        assert_eq!(apart(named).retry_delay(), Some(9 * second));
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let response = written(Refusal::method_not_allowed(HeaderValue::from_static("GET, POST")));
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &HeaderValue::from_static("GET, POST"))
        );
    }
}
