//! Decodes a batch of messages before it is applied.

use stampede_inbox::{HandleError, Message};
use std::fmt::Display;

/// Decodes each message of a batch and keeps its index. Skips messages for which `decode` returns `None`. Fails with
/// the first one that cannot be decoded: a poison message, since it never will.
pub fn decode<'m, T, E: Display>(
    batch: &'m [Message],
    decode: impl Fn(&'m Message) -> Result<Option<T>, E>,
) -> Result<Vec<(usize, T)>, HandleError> {
    let decoded = batch.iter().enumerate().map(|(index, message)| match decode(message) {
        Ok(decoded) => Ok(decoded.map(|decoded| (index, decoded))),
        Err(error) => Err(HandleError::Poison { index, detail: error.to_string() }),
    });
    decoded.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_inbox::Headers;

    fn message(payload: &[u8]) -> Message {
        Message {
            source: "/stampede/order".to_owned(),
            id: "1".to_owned(),
            sequence: 1,
            message_type: "example.v1.Counted".to_owned(),
            key: String::new(),
            payload: payload.to_owned(),
            traceparent: None,
            topic: "stampede.order".to_owned(),
            partition: 0,
            offset: 0,
            headers: Headers::default(),
        }
    }

    fn number(message: &Message) -> Result<Option<u32>, std::num::ParseIntError> {
        let text = String::from_utf8_lossy(&message.payload);
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }

    #[test]
    fn what_is_decoded_keeps_its_index() {
        let batch = [b"7".as_slice(), b"", b"9"].map(message);
        assert_eq!(decode(&batch, number).unwrap(), [(0, 7), (2, 9)]);
    }

    #[test]
    fn what_does_not_decode_is_poison() {
        let batch = [b"7".as_slice(), b"x"].map(message);
        assert!(matches!(decode(&batch, number), Err(HandleError::Poison { index: 1, .. })));
    }
}
