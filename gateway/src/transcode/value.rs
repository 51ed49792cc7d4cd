//! Converts JSON values to values of the contract. Every refusal names its field, in words for people.
//!
//! Converts the kinds that requests of the contract have. Others (maps, bytes, fractions, most well-known types) are
//! left to the library, whose error texts are not passed on.

use super::{
    decimal,
    json::unknown_field,
    tree::{Fields, Json},
};
use crate::routes::{FieldPath, named};
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde_json::json;
use stampede_status::Problem;
use std::fmt;

/// Most names of an enum that a refusal lists.
const LISTED_NAMES: usize = 12;

/// The location of a value. Formatted only for a refusal.
#[derive(Clone, Copy)]
pub enum Location<'p> {
    Body,
    /// A field of the value at this location.
    Field(&'p Location<'p>, &'p str),
    /// An item of the list at this location.
    Item(&'p Location<'p>, usize),
    /// A field that a path or a query names.
    Path(&'p FieldPath),
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Body => Ok(()),
            Location::Field(Location::Body, name) => f.write_str(name),
            Location::Field(parent, name) => write!(f, "{parent}.{name}"),
            Location::Item(list, index) => write!(f, "{list}[{index}]"),
            Location::Path(path) => write!(f, "{path}"),
        }
    }
}

impl Location<'_> {
    fn refuse(&self, problem: impl Into<String>) -> Problem {
        Problem::invalid_field(self.to_string(), problem)
    }
}

/// Reads a message from the fields of an object.
pub fn message(
    descriptor: &MessageDescriptor,
    fields: Fields<'_>,
    at: Location<'_>,
) -> Result<DynamicMessage, Problem> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut given = Vec::with_capacity(fields.len());
    for (name, json) in fields {
        let field = named(descriptor, &name).ok_or_else(|| unknown_field(&Location::Field(&at, &name).to_string()))?;
        let here = Location::Field(&at, field.name());
        if given.contains(&field.number()) {
            return Err(here.refuse("is given twice"));
        }
        given.push(field.number());
        if json == Json::Null && !takes_null(&field) {
            continue;
        }
        refuse_a_second_choice(&message, &field, here)?;
        let value = value(&field, json, here)?;
        message.set_field(&field, value);
    }
    Ok(message)
}

/// Returns whether null is a value of the field. For others it stands for a field that is not given.
fn takes_null(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(inner) if inner.full_name() == "google.protobuf.Value")
}

fn refuse_a_second_choice(message: &DynamicMessage, field: &FieldDescriptor, at: Location<'_>) -> Result<(), Problem> {
    let Some(choice) = field.containing_oneof() else { return Ok(()) };
    match choice.fields().find(|other| other != field && message.has_field(other)) {
        Some(other) => Err(at.refuse(format!("may not be given beside {}", other.name()))),
        None => Ok(()),
    }
}

/// Reads all that a field holds.
fn value(field: &FieldDescriptor, json: Json<'_>, at: Location<'_>) -> Result<Value, Problem> {
    if field.is_map() {
        return by_library(field, json).ok_or_else(|| at.refuse("must be an object of keys and values, no key twice"));
    }
    if !field.is_list() {
        return single(field, json, at);
    }
    let Json::List(items) = json else { return Err(at.refuse("must be a list")) };
    let read = |(index, item)| single(field, item, Location::Item(&at, index));
    Ok(Value::List(items.into_iter().enumerate().map(read).collect::<Result<_, _>>()?))
}

/// Reads one value of a field, which may be a list of such.
pub fn single(field: &FieldDescriptor, json: Json<'_>, at: Location<'_>) -> Result<Value, Problem> {
    let kind = field.kind();
    let read = match (&kind, json) {
        (Kind::Message(inner), json) if is_well_known(inner) => by_library(field, json),
        (Kind::Message(inner), Json::Object(fields)) => return message(inner, fields, at).map(Value::Message),
        (Kind::String, Json::Text(text)) => Some(Value::String(text.into_owned())),
        (Kind::Bool, Json::Bool(bool)) => Some(Value::Bool(bool)),
        (Kind::Enum(names), json) => enum_number(names, &json).map(Value::EnumNumber),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, json) => whole(&json).map(Value::I32),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, json) => whole(&json).map(Value::I64),
        (Kind::Uint32 | Kind::Fixed32, json) => whole(&json).map(Value::U32),
        (Kind::Uint64 | Kind::Fixed64, json) => whole(&json).map(Value::U64),
        (Kind::Double | Kind::Float | Kind::Bytes, json) => by_library(field, json),
        (Kind::Message(_) | Kind::String | Kind::Bool, _) => None,
    };
    read.ok_or_else(|| at.refuse(expected(&kind)))
}

fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// Reads a whole number, from a number or from a text of one, if the kind has it.
fn whole<N: TryFrom<i128>>(json: &Json<'_>) -> Option<N> {
    let number = match json {
        Json::Number(number) => decimal::whole_of_number(number)?,
        Json::Text(text) => decimal::whole_of_text(text)?,
        _ => return None,
    };
    N::try_from(number).ok()
}

fn enum_number(names: &EnumDescriptor, json: &Json<'_>) -> Option<i32> {
    match json {
        Json::Text(name) => names.get_value_by_name(name).map(|value| value.number()),
        Json::Number(_) => whole(json),
        _ => None,
    }
}

/// Reads the value of one field, or one of its list, by the library.
fn by_library(field: &FieldDescriptor, json: Json<'_>) -> Option<Value> {
    let one = json.into_value()?;
    let all = if field.is_list() { json!([one]) } else { one };
    let read = DynamicMessage::deserialize(field.parent_message().clone(), json!({ field.name(): all })).ok()?;
    match read.get_field(field).into_owned() {
        Value::List(mut items) if field.is_list() => items.pop(),
        value => Some(value),
    }
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::String => "must be a string".to_owned(),
        Kind::Bool => "must be true or false".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => between(i32::MIN, i32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => long(i64::MIN, i64::MAX),
        Kind::Uint32 | Kind::Fixed32 => between(u32::MIN, u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => long(u64::MIN, u64::MAX),
        Kind::Double | Kind::Float => "must be a number".to_owned(),
        Kind::Bytes => "must be a string of base64".to_owned(),
        Kind::Enum(names) => one_of(names),
        Kind::Message(inner) => match inner.full_name() {
            "google.protobuf.Timestamp" => "must be a time such as \"2026-01-31T09:00:00Z\"".to_owned(),
            "google.protobuf.Duration" => "must be a duration in seconds such as \"1.5s\"".to_owned(),
            _ if is_well_known(inner) => format!("must be a {} in its JSON form", inner.name()),
            _ => "must be an object".to_owned(),
        },
    }
}

fn between(least: impl fmt::Display, most: impl fmt::Display) -> String {
    format!("must be a whole number from {least} to {most}")
}

/// Describes a whole number of 64 bits: one that JSON readers may round is accepted in digits, or as a string.
fn long(least: impl fmt::Display, most: impl fmt::Display) -> String {
    between(least, most) + ", best as a string"
}

fn one_of(names: &EnumDescriptor) -> String {
    let names: Vec<_> = names.values().map(|value| value.name().to_owned()).take(LISTED_NAMES).collect();
    format!("must be one of {}", names.join(", "))
}
