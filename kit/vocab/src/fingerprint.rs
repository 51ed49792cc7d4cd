//! The hash of a request, by which a repeat differs from another request under the same `request_id`.

use crate::InvalidField;
use std::fmt;

/// SHA-256 of every field of a request that decides its effect. Two requests with the same one request the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::LEN]);

impl Fingerprint {
    /// Bytes that it has.
    pub const LEN: usize = 32;

    /// The one of this hash.
    pub const fn new(hash: [u8; Self::LEN]) -> Self {
        Self(hash)
    }

    /// Reads what a contract or a `BINARY(32)` column holds; the error names the field `request_fingerprint`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidField> {
        let wrong = |_| InvalidField::new("request_fingerprint", format!("must be {} bytes", Self::LEN));
        bytes.try_into().map(Self).map_err(wrong)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In hexadecimal, lower case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * Self::LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_32_bytes_and_shown_as_64_digits() {
        let hash = Fingerprint::parse(&[0x0a; 32]).unwrap();
        assert_eq!(hash.to_string(), "0a".repeat(32));
        assert_eq!(Fingerprint::parse(hash.as_bytes()), Ok(hash));
        for bad in [&[][..], &[1; 31], &[1; 33]] {
            assert_eq!(Fingerprint::parse(bad).unwrap_err().field, "request_fingerprint");
        }
    }
}
