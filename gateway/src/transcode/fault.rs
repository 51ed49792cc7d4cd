//! Finds which field of a JSON object is at fault, after reading it has failed. Never on the good path.

use super::json::unknown_field;
use crate::routes::named;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use stampede_status::Problem;

/// The first field that the message does not have, or whose value it does not take.
pub fn locate(message: &MessageDescriptor, object: &Map<String, Value>) -> Option<Problem> {
    in_object(message, object, "")
}

fn in_object(message: &MessageDescriptor, object: &Map<String, Value>, at: &str) -> Option<Problem> {
    object.iter().find_map(|(name, value)| match named(message, name) {
        None => Some(unknown_field(&join(at, name))),
        Some(field) => in_field(message, &field, value, &join(at, field.name())),
    })
}

fn in_field(message: &MessageDescriptor, field: &FieldDescriptor, value: &Value, at: &str) -> Option<Problem> {
    let alone = json!({ field.name(): value });
    let error = DynamicMessage::deserialize(message.clone(), alone).err()?;
    Some(below(field, value, at).unwrap_or_else(|| Problem::invalid_field(at, error.to_string())))
}

/// The fault inside of a field, where it holds messages that JSON writes as objects.
fn below(field: &FieldDescriptor, value: &Value, at: &str) -> Option<Problem> {
    let Kind::Message(inner) = field.kind() else { return None };
    match value {
        Value::Object(object) if !field.is_map() => in_object(&inner, object, at),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let at = format!("{at}[{index}]");
            match item {
                Value::Object(object) => in_object(&inner, object, &at),
                other => Some(Problem::invalid_field(at, format!("expected an object, not {other}"))),
            }
        }),
        _ => None,
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
