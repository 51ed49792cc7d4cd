//! A dotted path such as `max_total.currency`, resolved to the fields that it goes through.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// A way from a message to one of its fields. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    through: Vec<FieldDescriptor>,
    last: FieldDescriptor,
}

impl FieldPath {
    /// Resolves a path by the names of the contract or by their JSON form. `None` if there is no such field.
    pub fn resolve(message: &MessageDescriptor, path: &str) -> Option<Self> {
        let (through, last) = match path.rsplit_once('.') {
            Some((through, last)) => (through.split('.').collect(), last),
            None => (Vec::new(), path),
        };
        let mut message = message.clone();
        let mut fields = Vec::with_capacity(through.len());
        for name in through {
            let field = named(&message, name)?;
            let Kind::Message(inner) = field.kind() else { return None };
            if field.is_list() || field.is_map() {
                return None;
            }
            message = inner;
            fields.push(field);
        }
        Some(Self { through: fields, last: named(&message, last)? })
    }

    /// Returns the messages to go through, from the outermost.
    pub fn through(&self) -> &[FieldDescriptor] {
        &self.through
    }

    /// Returns the field at the end.
    pub fn last(&self) -> &FieldDescriptor {
        &self.last
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for field in &self.through {
            write!(f, "{}.", field.name())?;
        }
        f.write_str(self.last.name())
    }
}

/// Returns the field of this name, as the contract or its JSON form writes it.
pub fn named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}
