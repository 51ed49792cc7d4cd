//! The idempotency key of a request.

use crate::{InvalidField, refuse_card_number};

/// 1 to 64 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Most characters.
    pub const MAX_LEN: usize = 64;

    /// Parses the id of a new request as [`RequestId::parse`] does, but refuses one that looks like a card number,
    /// since it is stored and sent on. The error names the field `request_id`, and does not quote the id.
    pub fn of_request(text: &str) -> Result<Self, InvalidField> {
        refuse_card_number("request_id", text)?;
        Self::parse(text)
    }

    /// Takes 1 to 64 printable ASCII characters; the error names the field `request_id`.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            let problem = "must be 1 to 64 printable ASCII characters without blanks, chosen anew for each request; a UUID is good";
            Err(InvalidField::new("request_id", problem))
        }
    }

    /// Returns the characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_ascii_of_a_bounded_length_is_taken() {
        for bad in ["", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(bad).unwrap_err().field, "request_id", "{bad:?}");
        }
        assert_eq!(RequestId::parse(&"x".repeat(64)).unwrap().as_str().len(), 64);
    }

    #[test]
    fn a_card_number_is_no_id_of_a_new_request() {
        for card in ["4242424242424242", "4242-4242-4242-4242"] {
            let refused = RequestId::of_request(card).unwrap_err();
            assert_eq!(refused.field, "request_id");
            assert!(!refused.problem.contains("4242"), "{refused}");
            // Stored ids must stay readable.
            assert!(RequestId::parse(card).is_ok());
        }
        assert!(RequestId::of_request("01936f2c-4242-4242-8242-424242424242").is_ok());
    }
}
