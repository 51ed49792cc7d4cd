//! Context that every call propagates: the trace and the remaining time.

use crate::{Deadline, deadline::GRPC_TIMEOUT, telemetry};
use http::HeaderMap;
use std::time::Duration;

/// Longest time of a call outside any other call.
const DEFAULT: Duration = Duration::from_secs(5);

/// Returns the earliest of three: the deadline on the request, that of the call being handled, and the default.
pub(crate) fn deadline_of(headers: &HeaderMap) -> Deadline {
    let set = Deadline::from_headers(headers);
    let inherited = Deadline::current();
    match (set, inherited) {
        (Some(set), Some(inherited)) => set.min(inherited),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Deadline::after(DEFAULT),
    }
}

/// Writes the trace context and the remaining time into the headers of a call.
pub(crate) fn stamp(headers: &mut HeaderMap, deadline: Deadline) {
    telemetry::inject(headers);
    headers.insert(GRPC_TIMEOUT, deadline.to_header());
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with_timeout(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))])
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_counts() {
        assert_eq!(deadline_of(&HeaderMap::new()).remaining(), DEFAULT);
        assert_eq!(deadline_of(&with_timeout("9S")).remaining(), Duration::from_secs(9));
        let handling = Deadline::after(Duration::from_secs(2));
        handling
            .bound(async {
                assert_eq!(deadline_of(&HeaderMap::new()), handling);
                assert_eq!(deadline_of(&with_timeout("9S")), handling);
                assert_eq!(deadline_of(&with_timeout("1S")).remaining(), Duration::from_secs(1));
            })
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_says_how_long_it_waits_and_nothing_of_who_makes_it() {
        let mut headers = HeaderMap::new();
        stamp(&mut headers, Deadline::after(Duration::from_millis(30)));
        assert_eq!(headers[GRPC_TIMEOUT], "30000u");
        assert!(!headers.keys().any(|name| name.as_str().starts_with("x-stampede")), "{headers:?}");
    }
}
