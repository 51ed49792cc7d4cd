//! Problems as `application/problem+json` (RFC 9457).

use crate::{DOCS_BASE, Problem, Reason};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    reason: &'static str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Reason {
    /// Returns the documentation of this reason; the `type` of problem+json.
    pub fn docs_url(self) -> String {
        format!("{DOCS_BASE}#{self}")
    }
}

impl Problem {
    /// Returns the body of the HTTP answer. Logs the internal text, as this is where the problem leaves the process.
    pub fn to_json(&self, trace_id: &str) -> serde_json::Value {
        self.log_internal();
        let reason = self.reason();
        let retry_after_ms = self.retry_delay().map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        serde_json::to_value(ProblemJson {
            r#type: reason.docs_url(),
            title: reason.title(),
            status: reason.http().as_u16(),
            detail: self.detail(),
            reason: reason.as_str(),
            trace_id,
            field: self.field_path(),
            metadata: self.metadata(),
            retry_after_ms,
        })
        .expect("a struct of strings and numbers is always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_bare_problem_has_only_the_members_that_say_something() {
        let problem = Problem::new(Reason::SoldOut, "2 units are left").internal("secret");
        assert_eq!(
            problem.to_json("0af7651916cd43dd8448eb211c80319c"),
            json!({
                "type": "https://stampede.sale/errors#SOLD_OUT",
                "title": "There are not enough units left",
                "status": 409,
                "detail": "2 units are left",
                "reason": "SOLD_OUT",
                "trace_id": "0af7651916cd43dd8448eb211c80319c",
            })
        );
    }

    #[test]
    fn field_metadata_and_retry_are_there_when_known() {
        let body = Problem::invalid_field("units", "must be at least 1")
            .meta("minimum", 1)
            .retry_after(Duration::from_millis(1500))
            .to_json("req-2");
        assert_eq!(body["field"], "units");
        assert_eq!(body["metadata"], json!({ "minimum": "1" }));
        assert_eq!(body["retry_after_ms"], 1500);
    }
}
