//! The text form of 128 bits that the TypeID specification uses: 26 characters of Crockford's base32 in lower case.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of an encoded value.
pub const LEN: usize = 26;

/// Encodes `value` as 26 characters, most significant first, so that texts sort like numbers.
pub fn encode(value: u128) -> [u8; LEN] {
    let mut text = [0; LEN];
    let mut rest = value;
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    text
}

/// Decodes exactly 26 characters; `None` for another length, a foreign character or more than 128 bits.
pub fn decode(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != LEN || bytes[0] > b'7' {
        return None;
    }
    bytes.iter().try_fold(0, |value: u128, byte| {
        let digit = ALPHABET.iter().position(|letter| letter == byte)?;
        Some((value << 5) | digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(value: u128) {
            let text = encode(value);
            prop_assert_eq!(decode(std::str::from_utf8(&text).unwrap()), Some(value));
        }

        #[test]
        fn text_order_is_number_order(a: u128, b: u128) {
            prop_assert_eq!(a.cmp(&b), encode(a).cmp(&encode(b)));
        }
    }

    #[test]
    fn the_examples_of_the_specification_hold() {
        assert_eq!(&encode(0), b"00000000000000000000000000");
        assert_eq!(&encode(u128::MAX), b"7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(decode("8zzzzzzzzzzzzzzzzzzzzzzzzz"), None);
        assert_eq!(decode("0000000000000000000000000u"), None);
        assert_eq!(decode("0"), None);
    }
}
