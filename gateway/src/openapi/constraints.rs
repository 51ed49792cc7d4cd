//! The constraints on fields of requests, by the options of the contract: whether a field is required, and its bounds.
//!
//! Both options are found in the descriptors by themselves; a contract without them has no constraints.

use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Value as Reflected};
use serde_json::{Value, json};

/// `google.api.FieldBehavior`.
const OUTPUT_ONLY: i32 = 3;
const REQUIRED: i32 = 2;
/// Number of the option that has the bounds of a field.
const BOUNDS: u32 = 50103;

/// The fields of the bounds, their keywords in JSON Schema, and the values that these apply to.
const KEYWORDS: [(&str, &str, Kind); 7] = [
    ("min", "minimum", Kind::Number),
    ("max", "maximum", Kind::Number),
    ("min_length", "minLength", Kind::Text),
    ("max_length", "maxLength", Kind::Text),
    ("pattern", "pattern", Kind::Text),
    ("min_items", "minItems", Kind::List),
    ("max_items", "maxItems", Kind::List),
];

/// The kind of value that a keyword applies to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    List,
}

/// The options that constrain fields.
pub struct Constraints {
    behavior: Option<ExtensionDescriptor>,
    bounds: Option<ExtensionDescriptor>,
}

impl Constraints {
    pub fn of(pool: &DescriptorPool) -> Self {
        let options = pool.get_message_by_name("google.protobuf.FieldOptions");
        Self {
            behavior: pool.get_extension_by_name("google.api.field_behavior"),
            bounds: options.and_then(|options| options.get_extension(BOUNDS)),
        }
    }

    /// Returns whether requests must have the field.
    pub fn is_required(&self, field: &FieldDescriptor) -> bool {
        self.behaves(field, REQUIRED)
    }

    fn behaves(&self, field: &FieldDescriptor, behavior: i32) -> bool {
        let Some(extension) = &self.behavior else { return false };
        let options = field.options();
        let all = options.get_extension(extension);
        all.as_list().is_some_and(|all| all.iter().any(|one| one.as_enum_number() == Some(behavior)))
    }

    /// Puts the constraints of a field into its schema.
    pub fn put_in(&self, field: &FieldDescriptor, schema: &mut Value) {
        if self.behaves(field, OUTPUT_ONLY) {
            schema["readOnly"] = json!(true);
        }
        let Some(extension) = &self.bounds else { return };
        let options = field.options();
        if !options.has_extension(extension) {
            return;
        }
        let bounds = options.get_extension(extension);
        let Some(bounds) = bounds.as_message() else { return };
        for (name, keyword, kind) in KEYWORDS {
            if !bounds.has_field_by_name(name) {
                continue;
            }
            let value = bounds.get_field_by_name(name).and_then(|value| json_of(&value));
            if let (Some(value), Some(target)) = (value, target(schema, kind)) {
                target[keyword] = value;
            }
        }
    }
}

/// Returns the schema that a keyword of this kind belongs to: that of a list, or that of its items. `None` if it has no
/// meaning there, as bounds of numbers have none for the text of a 64-bit one.
fn target(schema: &mut Value, kind: Kind) -> Option<&mut Value> {
    let is_list = schema["type"] == "array";
    if kind == Kind::List {
        return is_list.then_some(schema);
    }
    let target = if is_list { &mut schema["items"] } else { schema };
    let fits = match kind {
        Kind::Number => target["type"] == "integer" || target["type"] == "number",
        Kind::Text | Kind::List => target["type"] == "string" && target.get("format").is_none(),
    };
    fits.then_some(target)
}

fn json_of(value: &Reflected) -> Option<Value> {
    Some(match value {
        Reflected::I32(number) => json!(number),
        Reflected::I64(number) => json!(number),
        Reflected::U32(number) => json!(number),
        Reflected::U64(number) => json!(number),
        Reflected::F64(number) => json!(number),
        Reflected::String(text) => json!(text),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_put_where_it_has_a_meaning() {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        target(&mut list, Kind::List).unwrap()["minItems"] = json!(1);
        target(&mut list, Kind::Text).unwrap()["maxLength"] = json!(64);
        assert!(target(&mut list, Kind::Number).is_none());
        assert_eq!(list, json!({"type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 64}}));
        let mut long = json!({"type": "string", "format": "int64"});
        assert!(target(&mut long, Kind::Number).is_none() && target(&mut long, Kind::Text).is_none());
        let mut number = json!({"type": "integer"});
        target(&mut number, Kind::Number).unwrap()["maximum"] = json!(100);
        assert_eq!(number["maximum"], 100);
    }

    #[test]
    fn a_contract_without_the_options_has_no_constraints() {
        let pool = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
        let field = pool.get_message_by_name("stampede.order.v1.PlaceOrderRequest").unwrap();
        let field = field.get_field_by_name("event_id").unwrap();
        let none = Constraints { behavior: None, bounds: None };
        let mut schema = json!({"type": "string"});
        none.put_in(&field, &mut schema);
        assert_eq!((schema, none.is_required(&field)), (json!({"type": "string"}), false));
        let behavior = Constraints::of(&pool).behavior.is_some();
        assert_eq!(Constraints::of(&pool).is_required(&field), behavior, "an order is for an event");
    }
}
