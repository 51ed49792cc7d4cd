//! The reasons that a request can fail for: those in the comment of its method, and those of every request.

use crate::routes::{Access, Route, Rpc};
use http::Method;
use stampede_status::Reason;
use std::collections::BTreeSet;

/// Reasons of every request.
const OF_ALL: [Reason; 6] = [
    Reason::InvalidField,
    Reason::UnknownField,
    Reason::Throttled,
    Reason::Overloaded,
    Reason::Unavailable,
    Reason::Internal,
];
/// Reasons of requests to a service.
const OF_SERVICES: [Reason; 2] = [Reason::DeadlineExceeded, Reason::NotImplemented];
/// Reasons of requests with a body.
const OF_BODIES: [Reason; 4] =
    [Reason::MalformedJson, Reason::UnsupportedMediaType, Reason::BodyTooLarge, Reason::BodyTimeout];
/// Reasons of requests that need a caller.
const OF_CALLERS: [Reason; 4] =
    [Reason::Unauthenticated, Reason::TokenExpired, Reason::TokenRevoked, Reason::PermissionDenied];
/// Reasons whose names are also codes or states: that a request can fail for them does not follow from its comment.
const AMBIGUOUS: [Reason; 6] = [
    Reason::Cancelled,
    Reason::DeadlineExceeded,
    Reason::Internal,
    Reason::PermissionDenied,
    Reason::Unauthenticated,
    Reason::Unavailable,
];

/// Returns the reasons of a route, besides those of the service behind it.
pub fn of_route(route: &Route) -> BTreeSet<Reason> {
    let mut reasons = BTreeSet::from(OF_ALL);
    if route.method == Method::POST {
        reasons.extend(OF_BODIES);
    }
    if route.access != Access::Public {
        reasons.extend(OF_CALLERS);
    }
    reasons
}

/// Returns the reasons of a method, with those of its route.
pub fn of_rpc(route: &Route, rpc: &Rpc, comment: &str) -> BTreeSet<Reason> {
    let mut reasons = of_route(route);
    reasons.extend(OF_SERVICES);
    // A variable may be followed by a verb that this path does not have.
    reasons.extend(rpc.variable.as_ref().map(|_| Reason::UnknownPath));
    reasons.extend(named(comment));
    reasons
}

/// Returns the reasons that a comment names, in capitals.
fn named(comment: &str) -> impl Iterator<Item = Reason> {
    let words = comment.split(|char: char| !char.is_ascii_uppercase() && char != '_');
    words.filter_map(Reason::parse).filter(|reason| !AMBIGUOUS.contains(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_names_reasons_and_other_words_in_capitals() {
        let comment =
            "Returns FAILED_PRECONDITION with SOLD_OUT, or (NOT_READY; its state is CANCELLED) with RetryInfo.";
        assert_eq!(named(comment).collect::<Vec<_>>(), [Reason::SoldOut, Reason::NotReady]);
        assert_eq!(named("UNAUTHENTICATED (INVALID_SIGNATURE)").collect::<Vec<_>>(), [Reason::InvalidSignature]);
    }
}
