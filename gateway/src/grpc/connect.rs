//! The parts that only Connect has: errors as JSON with an HTTP status, and messages in the JSON that its clients read.
//!
//! The status of each code is that of the protocol, and not that of HTTP/JSON here: clients take the code from the
//! body.

use super::encoding;
use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use prost_types::Any;
use serde_json::{Value, json};
use stampede_status::{Problem, Reason};
use tonic::{Code, Status};

/// Header with the version of the protocol.
const VERSION: &str = "connect-protocol-version";

/// The details of a `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct WithDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// Refuses another version of the protocol; a client that names none is taken for plain HTTP.
pub fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(VERSION) {
        None => Ok(()),
        Some(version) if version == "1" => Ok(()),
        Some(_) => Err(Problem::new(Reason::UnsupportedMediaType, format!("the header {VERSION} must be 1"))),
    }
}

/// Writes a message as JSON: names in lowerCamelCase, and unset fields left out.
pub fn to_json(message: &DynamicMessage) -> Result<Bytes, Problem> {
    let mut json = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut serializer, &SerializeOptions::new()).map_err(Problem::internal_error)?;
    Ok(json.into())
}

/// Returns the answer to a failed call.
pub fn refuse(status: &Status) -> Response {
    let (name, http) = form_of(status.code());
    let body = json!({ "code": name, "message": status.message(), "details": details(status) });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = http;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding::READ));
    response
}

fn details(status: &Status) -> Vec<Value> {
    let details = WithDetails::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let written = details.into_iter().map(|detail| {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        json!({ "type": name, "value": STANDARD_NO_PAD.encode(&detail.value) })
    });
    written.collect()
}

/// Returns the name of a code, and the HTTP status that it is sent with.
fn form_of(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::Cancelled => ("canceled", StatusCode::from_u16(499).expect("499 is a valid status code")),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
        Code::Ok | Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_code_and_its_details() {
        let problem = Problem::new(Reason::SoldOut, "2 units are left").meta("left", 2).internal("secret");
        let status = Status::from(problem);
        let response = refuse(&status);
        assert_eq!((response.status(), form_of(status.code()).0), (StatusCode::BAD_REQUEST, "failed_precondition"));
        let details = details(&status);
        assert_eq!(details[0]["type"], "google.rpc.ErrorInfo");
        let value = STANDARD_NO_PAD.decode(details[0]["value"].as_str().unwrap()).unwrap();
        assert!(value.windows(8).any(|bytes| bytes == b"SOLD_OUT"));
    }

    #[test]
    fn every_code_has_the_name_and_the_status_of_the_protocol() {
        let table = [
            (1, "canceled", 499),
            (2, "unknown", 500),
            (3, "invalid_argument", 400),
            (4, "deadline_exceeded", 504),
            (5, "not_found", 404),
            (6, "already_exists", 409),
            (7, "permission_denied", 403),
            (8, "resource_exhausted", 429),
            (9, "failed_precondition", 400),
            (10, "aborted", 409),
            (11, "out_of_range", 400),
            (12, "unimplemented", 501),
            (13, "internal", 500),
            (14, "unavailable", 503),
            (15, "data_loss", 500),
            (16, "unauthenticated", 401),
        ];
        for (code, name, http) in table {
            let (found, status) = form_of(Code::from_i32(code));
            assert_eq!((found, status.as_u16()), (name, http), "{code}");
        }
    }

    #[test]
    fn another_version_of_the_protocol_is_refused() {
        for (version, is_taken) in [(None, true), (Some("1"), true), (Some("2"), false)] {
            let version =
                version.map(|version| (http::HeaderName::from_static(VERSION), HeaderValue::from_static(version)));
            assert_eq!(check_version(&version.into_iter().collect()).is_ok(), is_taken);
        }
    }
}
