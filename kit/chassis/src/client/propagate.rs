//! What a call takes along: the trace, the time that is left, and who calls.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::{
    Deadline, Role,
    deadline::GRPC_TIMEOUT,
    identity::{ROLE_METADATA, USER_METADATA},
    telemetry,
};

/// How long a call may take that is not made on behalf of another.
const DEFAULT: Duration = Duration::from_secs(5);

/// The earliest of: the deadline the caller set on the request, that of the call being handled,
/// and the default.
pub(crate) fn deadline_of(headers: &HeaderMap) -> Deadline {
    let set = Deadline::from_headers(headers);
    let inherited = Deadline::current();
    match (set, inherited) {
        (Some(set), Some(inherited)) => set.min(inherited),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Deadline::after(DEFAULT),
    }
}

/// Writes the context of the call into its headers. A call that does not say who makes it is
/// made by this service.
pub(crate) fn stamp(headers: &mut HeaderMap, deadline: Deadline) {
    telemetry::inject(headers);
    headers.insert(GRPC_TIMEOUT, deadline.to_header());
    if !headers.contains_key(USER_METADATA) && !headers.contains_key(ROLE_METADATA) {
        headers.insert(ROLE_METADATA, HeaderValue::from_static(Role::Service.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn a_call_says_how_long_it_waits_and_who_makes_it() {
        let mut headers = HeaderMap::new();
        stamp(&mut headers, Deadline::after(Duration::from_millis(30)));
        assert_eq!(headers[GRPC_TIMEOUT], "30000u");
        assert_eq!(headers[ROLE_METADATA], "service");
        let mut headers = HeaderMap::from_iter([
            (USER_METADATA.parse().unwrap(), HeaderValue::from_static("usr_1")),
            (ROLE_METADATA.parse().unwrap(), HeaderValue::from_static("buyer")),
        ]);
        stamp(&mut headers, Deadline::after(DEFAULT));
        assert_eq!(headers[ROLE_METADATA], "buyer");
    }
}
