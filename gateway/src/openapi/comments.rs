//! The comments of the contract, as they stand above what they describe.

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use std::collections::HashMap;

/// The comment above each declaration, by its file and its path in the descriptor of that file.
pub struct Comments {
    by_place: HashMap<(String, Vec<i32>), String>,
}

impl Comments {
    /// Reads the comments of every file in the pool.
    pub fn of(pool: &DescriptorPool) -> Self {
        let mut by_place = HashMap::new();
        for file in pool.file_descriptor_protos() {
            for location in file.source_code_info.iter().flat_map(|info| &info.location) {
                let comment = flowing(location.leading_comments());
                if !comment.is_empty() {
                    by_place.insert((file.name().to_owned(), location.path.clone()), comment);
                }
            }
        }
        Self { by_place }
    }

    /// Returns the comment of a method; empty if it has none, as with all others.
    pub fn of_method(&self, method: &MethodDescriptor) -> &str {
        self.at(method.parent_file().name(), method.path())
    }

    /// Returns the comment of the service that a method is of.
    pub fn of_service(&self, method: &MethodDescriptor) -> &str {
        self.at(method.parent_file().name(), method.parent_service().path())
    }

    pub fn of_message(&self, message: &MessageDescriptor) -> &str {
        self.at(message.parent_file_descriptor_proto().name(), message.path())
    }

    pub fn of_field(&self, field: &FieldDescriptor) -> &str {
        self.at(field.parent_message().parent_file_descriptor_proto().name(), field.path())
    }

    /// Returns the comment of an enum, with a line for each value that has one.
    pub fn of_enum(&self, names: &EnumDescriptor) -> String {
        let file = names.parent_file();
        let text = self.at(file.name(), names.path());
        let values = names.values().filter_map(|value| {
            let meaning = self.at(file.name(), value.path());
            (!meaning.is_empty()).then(|| format!("- `{}`: {meaning}", value.name()))
        });
        let values: Vec<String> = values.collect();
        if values.is_empty() { text.to_owned() } else { format!("{text}\n\n{}", values.join("\n")) }
    }

    fn at(&self, file: &str, path: &[i32]) -> &str {
        self.by_place.get(&(file.to_owned(), path.to_vec())).map_or("", String::as_str)
    }
}

/// Joins the lines of each paragraph of a comment into one.
fn flowing(comment: &str) -> String {
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// Returns the first sentence of a text, without its full stop.
pub fn first_sentence(text: &str) -> &str {
    let end = [". ", ".\n"].iter().filter_map(|stop| text.find(stop)).min();
    end.map_or_else(|| text.trim_end_matches('.'), |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap()
    }

    #[test]
    fn lines_become_paragraphs() {
        assert_eq!(flowing(" One\n two.\n\n\n Three.\n"), "One two.\n\nThree.");
        assert_eq!(flowing(" \n"), "");
    }

    #[test]
    fn the_first_sentence_ends_at_its_full_stop() {
        for (text, first) in [
            ("Places an order. Once it is answered.", "Places an order"),
            ("Lists orders.\n\nMore.", "Lists orders"),
            ("Id, such as \"ord_01j9...\", of it.", "Id, such as \"ord_01j9...\", of it"),
            ("", ""),
        ] {
            assert_eq!(first_sentence(text), first);
        }
    }

    #[test]
    fn the_descriptors_have_the_comments_of_the_contract() {
        let pool = pool();
        let comments = Comments::of(&pool);
        let service = pool.get_service_by_name("stampede.order.v1.OrderService").unwrap();
        let method = service.methods().find(|method| method.name() == "PlaceOrder").unwrap();
        assert!(comments.of_method(&method).starts_with("Places an order."));
        assert!(!comments.of_service(&method).is_empty());
        let order = pool.get_message_by_name("stampede.order.v1.Order").unwrap();
        assert!(!comments.of_message(&order).is_empty());
        assert!(!comments.of_field(&order.get_field_by_name("order_id").unwrap()).is_empty());
    }

    #[test]
    fn an_enum_says_what_each_value_means() {
        let pool = pool();
        let states = pool.get_enum_by_name("stampede.order.v1.OrderState").unwrap();
        let text = Comments::of(&pool).of_enum(&states);
        assert_eq!(text.matches("\n- `ORDER_STATE_").count(), states.values().len(), "{text}");
    }
}
