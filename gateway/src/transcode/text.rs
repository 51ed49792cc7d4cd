//! Fields from plain text, as it stands in a path or in a query parameter.

use crate::routes::FieldPath;
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use serde_json::json;
use stampede_status::Problem;
use std::borrow::Cow;

/// Undoes percent-encoding; `field` is named if what comes out is no text.
pub fn decode<'t>(field: &dyn std::fmt::Display, text: &'t str) -> Result<Cow<'t, str>, Problem> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Problem::invalid_field(field.to_string(), "is not UTF-8 once percent-decoded"))
}

/// Sets the field, or puts the value behind the others where it is repeated.
pub fn set(message: &mut DynamicMessage, path: &FieldPath, text: &str) -> Result<(), Problem> {
    let parent = parent_of(message, path);
    let field = path.last();
    let value = value_of(parent, field, text)
        .map_err(|problem| Problem::invalid_field(path.to_string(), format!("\"{text}\" is not allowed: {problem}")))?;
    match (parent.get_field_mut(field), value) {
        (Value::List(list), Value::List(one)) => list.extend(one),
        (slot, value) => *slot = value,
    }
    Ok(())
}

/// The field's value, if one was set before.
pub fn get(message: &mut DynamicMessage, path: &FieldPath) -> Option<Value> {
    let parent = parent_of(message, path);
    parent.has_field(path.last()).then(|| parent.get_field(path.last()).into_owned())
}

fn parent_of<'m>(message: &'m mut DynamicMessage, path: &FieldPath) -> &'m mut DynamicMessage {
    path.through().iter().fold(message, |message, field| match message.get_field_mut(field) {
        Value::Message(inner) => inner,
        _ => unreachable!("a path goes through single messages only"),
    })
}

/// A list of one where the field is repeated.
fn value_of(parent: &DynamicMessage, field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let one = match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(text.parse().map_err(|_| "expected true or false".to_owned())?),
        // Everything else has a JSON form that is a string: numbers, names of enums, bytes, times.
        _ => return from_json_text(parent, field, text),
    };
    Ok(if field.is_list() { Value::List(vec![one]) } else { one })
}

fn from_json_text(parent: &DynamicMessage, field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let json = if field.is_list() { json!({ field.name(): [text] }) } else { json!({ field.name(): text }) };
    let read = DynamicMessage::deserialize(parent.descriptor(), json).map_err(|error| error.to_string())?;
    Ok(read.get_field(field).into_owned())
}
