//! The payload of a message in a readable form.

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::Value;
use stampede_proto::DESCRIPTOR_SET;

/// Most bytes that are shown of a payload that cannot be decoded.
const SHOWN: usize = 16 * 1_024;
/// Fields have the names of the contract, and unset ones are written too.
const OPTIONS: SerializeOptions = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);

#[derive(Debug, Serialize)]
pub struct Payload {
    pub bytes: usize,
    /// Its fields, if its type is known and it can be decoded.
    pub decoded: Option<Value>,
    /// Its first bytes in hexadecimal digits, if it cannot.
    pub hex: Option<String>,
}

impl Payload {
    /// Returns the payload of a message of this type.
    pub fn of(message_type: &str, bytes: &[u8]) -> Self {
        let decoded = decoded(message_type, bytes);
        let hex = decoded.is_none().then(|| hex(bytes));
        Self { bytes: bytes.len(), decoded, hex }
    }
}

fn decoded(message_type: &str, bytes: &[u8]) -> Option<Value> {
    let contract = DescriptorPool::decode(DESCRIPTOR_SET).expect("the build has written it");
    let message = DynamicMessage::decode(contract.get_message_by_name(message_type)?, bytes).ok()?;
    message.serialize_with_options(serde_json::value::Serializer, &OPTIONS).ok()
}

/// Returns the first bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_proto::{message::v1::PaymentDeclined, messages};

    #[test]
    fn a_known_message_is_decoded() {
        let declined = PaymentDeclined { order_id: "ord_1".to_owned(), attempt: 2, ..PaymentDeclined::default() };
        let (message_type, bytes) = messages::encode(&declined);
        let payload = Payload::of(&message_type, &bytes);
        let decoded = payload.decoded.unwrap();
        assert_eq!((&decoded["order_id"], &decoded["attempt"]), (&"ord_1".into(), &2.into()));
        assert_eq!(decoded["decline_code"], "DECLINE_CODE_UNSPECIFIED");
        assert_eq!((payload.bytes, payload.hex), (bytes.len(), None));
    }

    #[test]
    fn what_is_not_understood_is_shown_as_bytes() {
        for message_type in ["stampede.message.v1.PaymentDeclined", "of.nobody", ""] {
            let payload = Payload::of(message_type, &[0xff, 0x00]);
            assert_eq!((payload.decoded, payload.hex.as_deref()), (None, Some("ff00")), "{message_type}");
        }
        assert_eq!(Payload::of("", &[0; 100_000]).hex.unwrap().len(), 2 * SHOWN);
    }
}
