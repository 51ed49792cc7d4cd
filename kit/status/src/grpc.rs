//! Converts problems to gRPC statuses with `google.rpc` details, and back.

use crate::{DOMAIN, Problem, Reason};
use std::{collections::HashMap, error::Error};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain that the previous release sends. It is still read, so that callers may be upgraded before the services
/// that they call.
const FORMER_DOMAIN: &str = "stampede";
/// Most bytes of each text in a status. A status is sent in trailers, of which peers accept 16 KiB. It has the detail
/// three times, once of them percent-encoded.
const MAX_TEXT_BYTES: usize = 512;
/// Most facts in a status.
const MAX_FACTS: usize = 8;

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        problem.log_internal();
        let (reason, detail) = (problem.reason(), bounded(problem.detail()));
        let facts = problem.metadata().iter().take(MAX_FACTS);
        let metadata: HashMap<_, _> =
            facts.map(|(key, value)| (bounded(key).to_owned(), bounded(value).to_owned())).collect();
        let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
        details.add_help_link(reason.title(), reason.docs_url());
        if let Some(field) = problem.field_path() {
            details.add_bad_request_violation(bounded(field), detail);
        }
        if let Some(delay) = problem.retry_delay() {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(reason.code(), detail, details)
    }
}

/// Truncates a text that is too long, which may quote the request.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

impl Problem {
    /// Converts a status that a client call returned.
    ///
    /// A status of this product converts back to its problem, without the internal text. Of any other only the code is
    /// trusted: its message becomes internal, since it may not be fit for the caller. A failed connection is
    /// `UNAVAILABLE`.
    pub fn from_status(status: &Status) -> Problem {
        let details = status.get_error_details();
        match details.error_info() {
            Some(info) if [DOMAIN, FORMER_DOMAIN].contains(&info.domain.as_str()) => {
                let reason = Reason::parse(&info.reason).unwrap_or_else(|| Reason::of_code(status.code()));
                let problem = Problem::new(reason, status.message());
                restore(problem, &details)
            }
            _ => of_foreign(status),
        }
    }
}

fn restore(mut problem: Problem, details: &ErrorDetails) -> Problem {
    for (key, value) in details.error_info().into_iter().flat_map(|info| &info.metadata) {
        problem = problem.meta(key, value);
    }
    let violation = details.bad_request().and_then(|b| b.field_violations.first());
    if let Some(violation) = violation {
        problem = problem.field(&violation.field);
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        problem = problem.retry_after(delay);
    }
    problem
}

fn of_foreign(status: &Status) -> Problem {
    let reason = if is_transport_failure(status) { Reason::Unavailable } else { Reason::of_code(status.code()) };
    Problem::new(reason, reason.title()).internal(chain(status))
}

/// A received status has no source; one that tonic makes for a broken connection has.
fn is_transport_failure(status: &Status) -> bool {
    let broken = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    status.code() == Code::Unavailable || (broken && status.source().is_some())
}

/// Returns the message with those of all its causes: tonic says little more than "transport error" itself.
fn chain(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_reason_survives_the_way_through_a_status() {
        for reason in Reason::ALL {
            let sent = Problem::new(*reason, "what happened")
                .field("lines[2].units")
                .meta("left", 3)
                .retry_after(Duration::from_millis(250));
            let status = Status::from(sent.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Problem::from_status(&status), sent);
        }
    }

    #[test]
    fn a_status_links_to_the_page_that_explains_its_reason() {
        let details = Status::from(Problem::new(Reason::SoldOut, "none is left")).get_error_details();
        let links = &details.help().expect("a help").links;
        assert_eq!(links.len(), 1);
        assert_eq!(
            (links[0].description.as_str(), &links[0].url),
            (Reason::SoldOut.title(), &Reason::SoldOut.docs_url())
        );
    }

    #[test]
    fn what_a_caller_has_sent_does_not_make_a_status_too_large_for_its_peers() {
        let long = "\u{e4}".repeat(50_000);
        let problem = Problem::new(Reason::InvalidField, long.clone()).field(long.clone());
        let facts = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let status = Status::from(facts.iter().fold(problem, |problem, key| problem.meta(*key, &long)));
        assert!(status.message().len() <= MAX_TEXT_BYTES && long.starts_with(status.message()));
        // As the trailers carry them: one percent-encoded, the other in base64.
        let bytes = 3 * status.message().len() + status.details().len().div_ceil(3) * 4;
        assert!(bytes < 12 << 10, "{bytes}");
    }

    #[test]
    fn the_internal_text_is_not_sent() {
        let status = Status::from(Problem::unavailable("the ledger", "mysql://root:secret@db"));
        assert!(!status.message().contains("secret"));
        assert!(!status.details().windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(Problem::from_status(&status).internal_detail(), None);
    }

    #[test]
    fn a_plain_status_keeps_its_code_but_not_its_message() {
        let problem = Problem::from_status(&Status::deadline_exceeded("at 10.0.0.7"));
        assert_eq!(problem.reason(), Reason::DeadlineExceeded);
        assert!(!problem.detail().contains("10.0.0.7"));
        assert!(problem.internal_detail().is_some_and(|cause| cause.contains("10.0.0.7")));
    }

    #[test]
    fn an_unknown_reason_of_this_product_falls_back_to_its_code() {
        let details = ErrorDetails::with_error_info("NEWER", DOMAIN, [("a".into(), "b".into())]);
        let status = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        let problem = Problem::from_status(&status);
        assert_eq!((problem.reason(), problem.detail()), (Reason::Throttled, "slow down"));
        assert_eq!(problem.metadata()["a"], "b");
    }

    #[test]
    fn a_reason_of_the_release_before_is_known_and_that_of_a_stranger_is_not() {
        for (domain, reason) in [("stampede", Reason::SoldOut), ("example.com", Reason::Internal)] {
            let details = ErrorDetails::with_error_info("SOLD_OUT", domain, HashMap::<String, String>::new());
            let status = Status::with_error_details(Code::FailedPrecondition, "none is left", details);
            assert_eq!(Problem::from_status(&status).reason(), reason, "{domain}");
        }
    }

    #[test]
    fn a_broken_connection_is_unavailable() {
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let status = Status::from_error(Box::new(broken));
        assert_eq!(Problem::from_status(&status).reason(), Reason::Unavailable);
        assert_eq!(Problem::from_status(&Status::unknown("odd")).reason(), Reason::Internal);
    }
}
