//! JSON texts to messages, by the JSON mapping of protobuf: fields by the names of the contract or in lowerCamelCase,
//! 64-bit numbers as strings or numbers, enums by name. What the contract does not know is refused, never ignored.

use super::fault;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Deserializer, Value};
use stampede_status::{Problem, Reason};

/// Reads a body; an empty one is an empty message.
pub fn read(message: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(DynamicMessage::new(message.clone()));
    }
    let mut json = Deserializer::from_slice(body);
    DynamicMessage::deserialize(message.clone(), &mut json)
        .and_then(|read| json.end().map(|()| read))
        .map_err(|error| refusal(message, body, &error))
}

/// Why a body was refused. Reads it a second time: it is worth more to name the place than to be quick here.
fn refusal(message: &MessageDescriptor, body: &[u8], error: &serde_json::Error) -> Problem {
    match serde_json::from_slice::<Value>(body) {
        Err(error) => malformed(&error),
        Ok(Value::Object(object)) => fault::locate(message, &object)
            .unwrap_or_else(|| Problem::new(Reason::InvalidField, format!("the body does not fit: {error}"))),
        Ok(_) => Problem::new(Reason::MalformedJson, "the body must be a JSON object"),
    }
}

/// A text that is no JSON, with the place.
pub fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Reason::MalformedJson, error.to_string()).meta("line", error.line()).meta("column", error.column())
}

/// An unknown field.
pub fn unknown_field(path: &str) -> Problem {
    Problem::new(Reason::UnknownField, format!("there is no field \"{path}\" in this request")).field(path)
}
