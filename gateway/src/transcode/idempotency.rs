//! The header `Idempotency-Key`, an alternative to the field `request_id`.
//!
//! Clients send it with all of their requests: where there is no `request_id` it is ignored.

use crate::routes::Rpc;
use http::{HeaderMap, HeaderName};
use prost_reflect::{DynamicMessage, Value};
use stampede_status::Problem;
use stampede_vocab::refuse_card_number;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Sets `request_id` from the header. If the request has one too, both must be equal.
pub fn apply(rpc: &Rpc, headers: &HeaderMap, message: &mut DynamicMessage) -> Result<(), Problem> {
    let Some(field) = &rpc.request_id else { return Ok(()) };
    let Some(key) = key(headers)? else { return Ok(()) };
    // Checked here already, since the answer below repeats both.
    refuse_card_number("request_id", &key)?;
    let given = message.get_field(field).as_str().unwrap_or_default().to_owned();
    if given.is_empty() {
        message.set_field(field, Value::String(key));
    } else if given != key {
        refuse_card_number("request_id", &given)?;
        let problem = format!("request_id is \"{given}\" and the header Idempotency-Key is \"{key}\": send only one");
        return Err(refuse(&problem).meta("request_id", given).meta("idempotency_key", key));
    }
    Ok(())
}

/// Returns the key, bare or as the quoted string that the draft of the IETF has.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("the header Idempotency-Key is given twice"));
    }
    let text = value.to_str().map_err(|_| refuse("the header Idempotency-Key has characters that are not ASCII"))?;
    let text = text.trim();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    Ok(Some(bare.to_owned()))
}

fn refuse(problem: &str) -> Problem {
    Problem::invalid_field("request_id", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_key_is_taken_bare_or_quoted_and_once() {
        for (values, expected) in [
            (vec![], Some(None)),
            (vec!["k-1"], Some(Some("k-1"))),
            (vec!["\"k-1\""], Some(Some("k-1"))),
            (vec!["\""], Some(Some("\""))),
            (vec!["k-1", "k-1"], None),
            (vec!["k\u{e9}"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let read = key(&headers).ok();
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{values:?}");
        }
    }
}
