//! Responses: the problems that a request can fail with, by status, and the headers of all.

use super::schemas::reference;
use crate::trace_id;
use serde_json::{Map, Value, json};
use stampede_status::Reason;
use std::collections::{BTreeMap, BTreeSet};

/// The media type of problems.
const PROBLEM: &str = "application/problem+json";

/// Returns the headers that responses refer to.
pub fn headers() -> Value {
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    json!({
        "TraceId": text("Names the request, in logs and traces too."),
        "ETag": text("Names what the answer says; send it as If-None-Match to ask whether it still does."),
        "CacheControl": text("Who may keep the answer, and for how long."),
        "RetryAfter": {
            "description": "Whole seconds to wait before a retry. `retry_after_ms` of the problem is more exact.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "WwwAuthenticate": text("`Bearer`, with `error=\"invalid_token\"` if the token that came is not taken."),
    })
}

/// Returns the response of success: `content` by its media type; `None` for no body.
pub fn success(description: &str, content: Option<(&str, Value)>, is_kept: bool) -> Value {
    let mut headers = named_headers(&[]);
    if is_kept {
        headers = named_headers(&[("ETag", "ETag"), ("Cache-Control", "CacheControl")]);
    }
    let mut response = json!({"description": description, "headers": headers});
    if let Some((media_type, content)) = content {
        response["content"] = json!({media_type: content});
    }
    response
}

/// Returns the responses that are problems: one a status, with the reasons that it has.
pub fn failures(reasons: &BTreeSet<Reason>) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Reason>> = BTreeMap::new();
    for reason in reasons {
        by_status.entry(reason.http().as_u16()).or_default().push(*reason);
    }
    by_status.into_iter().map(|(status, reasons)| (status.to_string(), failure(&reasons))).collect()
}

fn failure(reasons: &[Reason]) -> Value {
    let names: Vec<_> = reasons.iter().map(|reason| reason.as_str()).collect();
    let meanings: Vec<_> = reasons.iter().map(|reason| format!("- `{reason}`: {}", reason.title())).collect();
    let mut more = Vec::new();
    if reasons.contains(&Reason::Unauthenticated) {
        more.push(("WWW-Authenticate", "WwwAuthenticate"));
    }
    if reasons.iter().any(|reason| may_say_when(*reason)) {
        more.push(("Retry-After", "RetryAfter"));
    }
    let only = json!({"type": "object", "properties": {"reason": {"enum": names}}});
    json!({
        "description": meanings.join("\n"),
        "headers": named_headers(&more),
        "content": {PROBLEM: {"schema": {"allOf": [reference("Problem"), only]}}},
    })
}

/// Returns whether a problem of this reason may have a retry delay: a fixed one, or that of a limit.
fn may_say_when(reason: Reason) -> bool {
    reason.default_retry().is_some() || matches!(reason, Reason::Throttled | Reason::TooManyAttempts)
}

fn named_headers(more: &[(&str, &str)]) -> Value {
    let all = std::iter::once(&(trace_id::HEADER, "TraceId")).chain(more);
    let refer =
        |(header, name): &(&str, &str)| ((*header).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    Value::Object(all.map(refer).collect())
}

pub fn problem() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457). Match on `reason`; the texts are for people.",
        "required": ["type", "title", "status", "detail", "reason", "trace_id"],
        "properties": {
            "type": text("Where the reason is explained."),
            "title": text("One sentence that holds for every occurrence."),
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": text("What happened this time."),
            // Later versions may have more.
            "reason": {"type": "string", "examples": reasons, "description": "Why it failed."},
            "trace_id": text("Names the request, in logs and traces too."),
            "field": text("Path of the field at fault, such as `lines[0].units`."),
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Facts for programs, such as `left_units`.",
            },
            "retry_after_ms": {"type": "integer", "minimum": 0, "description": "How long to wait before a retry."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_by_their_status() {
        let reasons = BTreeSet::from([Reason::SoldOut, Reason::RequestIdReused, Reason::NotReady]);
        let failures = failures(&reasons);
        assert_eq!(failures.keys().collect::<Vec<_>>(), ["409", "503"]);
        let conflict = &failures["409"]["content"]["application/problem+json"]["schema"]["allOf"][1];
        assert_eq!(conflict["properties"]["reason"]["enum"], json!(["REQUEST_ID_REUSED", "SOLD_OUT"]));
        assert!(failures["503"]["headers"].get("Retry-After").is_some());
        assert!(failures["409"]["headers"].get("Retry-After").is_none());
        assert!(failure(&[Reason::TooManyAttempts])["headers"].get("Retry-After").is_some());
    }

    #[test]
    fn a_problem_has_the_members_that_are_described() {
        let problem = stampede_status::Problem::invalid_field("units", "must be at least 1").meta("minimum", 1);
        let problem = problem.retry_after(std::time::Duration::from_secs(1)).to_json("trace");
        let schema = super::problem();
        let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(described, problem.as_object().unwrap().keys().collect());
    }
}
