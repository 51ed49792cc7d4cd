//! JSON texts to messages, by the JSON mapping of protobuf: fields by the names of the contract or in lowerCamelCase,
//! 64-bit numbers as strings or numbers, enums by name. An unknown field is refused, never ignored, and so is one that
//! is given twice.

use super::{
    tree::{Fields, Json},
    value::{Location, message},
};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};
use stampede_status::{Problem, Reason};

/// Reads a body; an empty one is an empty message.
pub fn read(descriptor: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, Problem> {
    message(descriptor, fields(body)?, Location::Body)
}

/// Reads a body that no message of the contract describes; an empty one is an empty object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for (name, json) in fields(body)? {
        let value = json.into_value().ok_or_else(|| Problem::invalid_field(&*name, "gives a name twice"))?;
        if object.insert(name.clone().into_owned(), value).is_some() {
            return Err(Problem::invalid_field(name, "is given twice"));
        }
    }
    Ok(object)
}

fn fields(body: &[u8]) -> Result<Fields<'_>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Fields::new());
    }
    match Json::parse(body).map_err(|error| malformed(&error))? {
        Json::Object(fields) => Ok(fields),
        _ => Err(Problem::new(Reason::MalformedJson, "the body must be a JSON object")),
    }
}

/// Returns the problem of malformed JSON, with its position.
fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_eof() { "ends too early" } else { "is not JSON, or nested too deeply" };
    Problem::new(Reason::MalformedJson, format!("the body {what}: reading stopped at line {line}, column {column}"))
        .meta("line", line)
        .meta("column", column)
}

/// Returns the problem of an unknown field.
pub fn unknown_field(path: &str) -> Problem {
    Problem::new(Reason::UnknownField, format!("there is no field \"{path}\" in this request")).field(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whole_or_refused() {
        assert_eq!(object(b" ").unwrap(), Map::new());
        assert_eq!(object(br#"{"a":{"b":1}}"#).unwrap()["a"]["b"], 1);
        for (body, reason, field) in [
            (r#"{"a":1,"a":1}"#, Reason::InvalidField, Some("a")),
            (r#"{"a":{"b":1,"b":1}}"#, Reason::InvalidField, Some("a")),
            ("[]", Reason::MalformedJson, None),
            ("{", Reason::MalformedJson, None),
        ] {
            let problem = object(body.as_bytes()).unwrap_err();
            assert_eq!((problem.reason(), problem.field_path()), (reason, field), "{body}");
        }
    }

    #[test]
    fn malformed_json_is_described_in_words_for_people() {
        for (body, words) in [("{\"a\":", "ends too early"), ("{\"a\":oops}", "is not JSON")] {
            let problem = object(body.as_bytes()).unwrap_err();
            assert!(problem.detail().contains(words), "{problem}");
            assert!(!problem.detail().contains("expected"), "{problem}");
        }
    }
}
