//! Sets fields from plain text, as in a path or in a query parameter.

use super::{
    tree::Json,
    value::{Location, single},
};
use crate::routes::FieldPath;
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use stampede_status::Problem;
use std::borrow::Cow;

/// Decodes percent-encoding; `field` is named if the result is no text.
pub fn decode<'t>(field: &dyn std::fmt::Display, text: &'t str) -> Result<Cow<'t, str>, Problem> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Problem::invalid_field(field.to_string(), "is not UTF-8 once percent-decoded"))
}

/// Sets the field, or appends the value where it is repeated.
pub fn set(message: &mut DynamicMessage, path: &FieldPath, text: &str) -> Result<(), Problem> {
    let field = path.last();
    let value = single(field, json_of(field, text), Location::Path(path))?;
    match parent_of(message, path).get_field_mut(field) {
        Value::List(list) => list.push(value),
        slot => *slot = value,
    }
    Ok(())
}

/// Returns the field's value, if one was set before.
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

/// Returns the text as a body would have it. Most kinds have a JSON form that is a string.
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

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::{DescriptorPool, ReflectMessage};
    use prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
        field_descriptor_proto::{Label, Type},
    };
    use serde_json::json;

    fn field(name: &str, number: i32, kind: Type, type_name: Option<&str>) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some(kind.into()),
            type_name: type_name.map(str::to_owned),
            ..FieldDescriptorProto::default()
        }
    }

    /// Returns a message with kinds of fields that no query of the contract has yet.
    fn message() -> DynamicMessage {
        let fields = vec![
            field("kind", 1, Type::Enum, Some(".google.protobuf.Field.Kind")),
            field("flag", 2, Type::Bool, None),
            field("maybe", 3, Type::Message, Some(".google.protobuf.BoolValue")),
        ];
        let file = FileDescriptorProto {
            name: Some("test.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: ["type", "wrappers"].map(|name| format!("google/protobuf/{name}.proto")).into(),
            message_type: vec![DescriptorProto {
                name: Some("Query".to_owned()),
                field: fields,
                ..DescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let mut pool = DescriptorPool::global();
        pool.add_file_descriptor_proto(file).unwrap();
        DynamicMessage::new(pool.get_message_by_name("Query").unwrap())
    }

    /// Returns the field as JSON, once it is set to this text.
    fn read(name: &str, text: &str) -> Option<serde_json::Value> {
        let mut message = message();
        let path = FieldPath::resolve(&message.descriptor(), name).unwrap();
        set(&mut message, &path, text).ok()?;
        Some(serde_json::to_value(&message).unwrap()[name].take())
    }

    #[test]
    fn an_enum_is_taken_by_its_name_and_its_number_and_a_truth_in_two_words() {
        for (name, text, expected) in [
            ("kind", "TYPE_STRING", Some(json!("TYPE_STRING"))),
            ("kind", "9", Some(json!("TYPE_STRING"))),
            ("kind", "TYPE_NOTHING", None),
            ("flag", "true", Some(json!(true))),
            ("flag", "1", None),
            ("flag", "yes", None),
            ("maybe", "true", Some(json!(true))),
            ("maybe", "false", Some(json!(false))),
            ("maybe", "maybe", None),
        ] {
            assert_eq!(read(name, text), expected, "{name}={text}");
        }
    }
}
