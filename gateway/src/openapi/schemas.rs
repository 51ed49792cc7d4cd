//! Messages and enums of the contract as schemas, in their JSON form.
//!
//! Messages of requests are closed, as the gateway refuses unknown fields; they require the fields that the contract
//! marks as required. Messages of answers alone are open, as a later version may add to them; there each field without
//! presence is always written.

use super::{comments::Comments, constraints::Constraints};
use crate::routes::Rpc;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The schemas that are referred to, each written once.
pub struct Schemas {
    pub comments: Comments,
    constraints: Constraints,
    /// Full names of the messages that bodies of requests are made of.
    inputs: BTreeSet<String>,
    /// Full names of the messages and enums that are written, by the name that each is written under.
    names: BTreeMap<String, String>,
    written: Map<String, Value>,
}

impl Schemas {
    /// Starts without schemas. `bodies` are the messages of the bodies of requests.
    pub fn new<'m>(pool: &DescriptorPool, bodies: impl Iterator<Item = &'m MessageDescriptor>) -> Self {
        let mut inputs = BTreeSet::new();
        bodies.for_each(|body| collect(body, &mut inputs));
        Self {
            comments: Comments::of(pool),
            constraints: Constraints::of(pool),
            inputs,
            names: BTreeMap::new(),
            written: Map::new(),
        }
    }

    /// Writes a schema that no message stands for, and refers to it.
    pub fn add(&mut self, name: &str, schema: Value) -> Value {
        self.names.insert(name.to_owned(), String::new());
        self.written.insert(name.to_owned(), schema);
        reference(name)
    }

    /// Returns all that were written.
    pub fn into_map(self) -> Map<String, Value> {
        self.written
    }

    /// Returns whether requests must have the field.
    pub fn is_required(&self, field: &FieldDescriptor) -> bool {
        self.constraints.is_required(field)
    }

    /// Refers to a message.
    pub fn of_message(&mut self, message: &MessageDescriptor) -> Value {
        self.write(message, None)
    }

    /// Refers to the body of a request: the message without what stands in the path.
    pub fn of_body(&mut self, rpc: &Rpc) -> Value {
        self.write(&rpc.input, Some(rpc))
    }

    pub fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        let kind = field.kind();
        let mut schema = match &kind {
            Kind::Message(entry) if field.is_map() => {
                let values = self.of_kind(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": values})
            }
            kind if field.is_list() => json!({"type": "array", "items": self.of_kind(kind)}),
            kind => self.of_kind(kind),
        };
        self.constraints.put_in(field, &mut schema);
        describe(&mut schema, self.comments.of_field(field));
        schema
    }

    fn of_kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            // JSON readers may round larger numbers, so they are texts.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(names) => self.of_enum(names),
            Kind::Message(message) => well_known(message.full_name()).unwrap_or_else(|| self.of_message(message)),
        }
    }

    fn of_enum(&mut self, names: &EnumDescriptor) -> Value {
        let name = self.name_of(names.full_name(), names.name());
        if !self.written.contains_key(&name) {
            let values: Vec<_> = names.values().map(|value| value.name().to_owned()).collect();
            let mut schema = json!({"type": "string", "enum": values});
            describe(&mut schema, &self.comments.of_enum(names));
            self.written.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn write(&mut self, message: &MessageDescriptor, body_of: Option<&Rpc>) -> Value {
        let name = self.name_of(message.full_name(), message.name());
        if !self.written.contains_key(&name) {
            // A message may contain itself.
            self.written.insert(name.clone(), Value::Null);
            let schema = self.of_fields(message, body_of);
            self.written.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn of_fields(&mut self, message: &MessageDescriptor, body_of: Option<&Rpc>) -> Value {
        let is_input = self.inputs.contains(message.full_name());
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| !body_of.is_some_and(|rpc| rpc.has_in_path(field))) {
            // A header may stand for it.
            let is_key = body_of.is_some_and(|rpc| rpc.request_id.as_ref() == Some(&field));
            let is_needed = if is_input { self.is_required(&field) && !is_key } else { !field.supports_presence() };
            if is_needed {
                required.push(field.name().to_owned());
            }
            properties.insert(field.name().to_owned(), self.of_field(&field));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if is_input {
            schema["additionalProperties"] = json!(false);
        }
        describe(&mut schema, self.comments.of_message(message));
        schema
    }

    /// Returns the short name, or the full one if something else has the short one.
    fn name_of(&mut self, full: &str, short: &str) -> String {
        let taken = self.names.entry(short.to_owned()).or_insert_with(|| full.to_owned());
        if *taken == full { short.to_owned() } else { full.to_owned() }
    }
}

/// Refers to a schema of this name.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn describe(schema: &mut Value, text: &str) {
    if !text.is_empty() {
        schema["description"] = json!(text);
    }
}

/// Returns the JSON form of types that protobuf itself defines; `None` for messages of ours.
fn well_known(name: &str) -> Option<Value> {
    Some(match name {
        "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"}),
        // Any JSON.
        name if name.starts_with("google.protobuf.") => json!({}),
        _ => return None,
    })
}

/// Adds the full name of a message and of all that it may contain.
fn collect(message: &MessageDescriptor, names: &mut BTreeSet<String>) {
    if names.insert(message.full_name().to_owned()) {
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                collect(&inner, names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap()
    }

    #[test]
    fn values_have_the_form_that_the_gateway_writes() {
        let pool = pool();
        let mut schemas = Schemas::new(&pool, std::iter::empty());
        let order = pool.get_message_by_name("stampede.order.v1.Order").unwrap();
        assert_eq!(schemas.of_message(&order), json!({"$ref": "#/components/schemas/Order"}));
        let written = schemas.into_map();
        let fields = &written["Order"]["properties"];
        assert_eq!(fields["arrival"]["format"], "int64");
        assert_eq!(fields["create_time"]["format"], "date-time");
        assert_eq!(fields["lines"]["items"]["$ref"], "#/components/schemas/OrderLine");
        assert_eq!(fields["state"]["$ref"], "#/components/schemas/OrderState");
        assert!(fields["state"]["description"].is_string(), "beside the reference");
        assert!(written["OrderState"]["enum"].as_array().unwrap().len() > 5);
        let required = written["Order"]["required"].as_array().unwrap();
        assert!(required.contains(&json!("order_id")) && !required.contains(&json!("create_time")), "{required:?}");
    }

    #[test]
    fn what_requests_are_made_of_is_closed() {
        let pool = pool();
        let request = pool.get_message_by_name("stampede.order.v1.PlaceOrderRequest").unwrap();
        let order = pool.get_message_by_name("stampede.order.v1.Order").unwrap();
        let mut schemas = Schemas::new(&pool, [&request].into_iter());
        schemas.of_message(&request);
        schemas.of_message(&order);
        let written = schemas.into_map();
        for closed in ["PlaceOrderRequest", "NewOrderLine", "Money"] {
            assert_eq!(written[closed]["additionalProperties"], false, "{closed}");
        }
        assert!(written["Order"].get("additionalProperties").is_none());
    }

    #[test]
    fn two_of_one_name_are_distinguished() {
        let mut schemas = Schemas::new(&pool(), std::iter::empty());
        assert_eq!(schemas.name_of("a.Item", "Item"), "Item");
        assert_eq!(schemas.name_of("b.Item", "Item"), "b.Item");
        assert_eq!(schemas.name_of("a.Item", "Item"), "Item");
    }
}
