//! The messages on the topics: their names, which service takes which, and why one cannot be decoded.

use crate::{DESCRIPTOR_SET, message::v1::OrderPlaced};
use prost::{Message, Name};
use prost_types::FileDescriptorSet;
use stampede_vocab::{InvalidField, Service};

/// The package of every message.
pub const PACKAGE: &str = OrderPlaced::PACKAGE;

/// Why a payload cannot be decoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// It is not a message of this type.
    #[error(transparent)]
    Payload(#[from] prost::DecodeError),
    /// A field has an invalid value.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

/// Returns the full name and the bytes of a message, as an outbox takes them.
pub fn encode<M: Message + Name>(message: &M) -> (String, Vec<u8>) {
    (M::full_name(), message.encode_to_vec())
}

/// Returns the name within its package of a message with this full name; `None` for one of another package.
pub fn name(message_type: &str) -> Option<&str> {
    message_type.strip_prefix(PACKAGE)?.strip_prefix('.')
}

/// Returns the full names of the messages that `reader` takes from the topic of `writer`. It skips all others.
pub fn taken(reader: Service, writer: Service) -> Vec<String> {
    reader.takes(writer).iter().map(|name| format!("{PACKAGE}.{name}")).collect()
}

/// Returns the full names of all messages that `reader` takes.
pub fn taken_by(reader: Service) -> impl Iterator<Item = String> {
    reader.reads().flat_map(move |writer| taken(reader, writer))
}

/// Returns the full names of the messages in the file of the contract of `writer`; none if it has no such file.
pub fn written_by(writer: Service) -> Vec<String> {
    let contract = FileDescriptorSet::decode(DESCRIPTOR_SET).expect("the build has written it");
    let name = format!("stampede/message/v1/{writer}.proto");
    let file = contract.file.into_iter().find(|file| file.name() == name);
    let messages = file.into_iter().flat_map(|file| file.message_type);
    messages.map(|message| format!("{PACKAGE}.{}", message.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::v1::OrderExpired;

    #[test]
    fn what_is_taken_from_a_topic_is_a_message_of_its_writer() {
        for reader in Service::ALL {
            for writer in reader.reads() {
                let written = written_by(writer);
                for message in taken(reader, writer) {
                    assert!(written.contains(&message), "{reader} takes {message} from {writer}: {written:?}");
                }
            }
        }
    }

    #[test]
    fn a_message_is_known_by_its_name_within_the_package() {
        let (message_type, _) = encode(&OrderExpired::default());
        assert_eq!(message_type, "stampede.message.v1.OrderExpired");
        assert_eq!(name(&message_type), Some(OrderExpired::NAME));
        assert_eq!(name("stampede.order.v1.Order"), None);
    }
}
