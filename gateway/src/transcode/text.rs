//! Fields from plain text, as it stands in a path or in a query parameter.

use super::{
    tree::Json,
    value::{Place, single},
};
use crate::routes::FieldPath;
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
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
    let field = path.last();
    let value = single(field, json_of(field, text), Place::Path(path))?;
    match parent_of(message, path).get_field_mut(field) {
        Value::List(list) => list.push(value),
        slot => *slot = value,
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

/// The text as a body would have it. Most kinds have a JSON form that is a string.
fn json_of<'t>(field: &FieldDescriptor, text: &'t str) -> Json<'t> {
    let is_number = || text.parse::<i32>().ok().map(|number| Json::Number(number.into()));
    let is_bool = || text.parse::<bool>().ok().map(Json::Bool);
    let other = match field.kind() {
        Kind::Bool => is_bool(),
        Kind::Message(inner) if inner.full_name() == "google.protobuf.BoolValue" => is_bool(),
        Kind::Enum(_) => is_number(),
        _ => None,
    };
    other.unwrap_or(Json::Text(Cow::Borrowed(text)))
}
