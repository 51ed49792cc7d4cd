//! The hash of a request, which distinguishes a repeat from another request under the same `request_id`.

use crate::InvalidField;
use std::fmt;

/// SHA-256 of every field of a request that decides its effect. Requests with the same fingerprint are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::LEN]);

impl Fingerprint {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Wraps a hash.
    pub const fn new(hash: [u8; Self::LEN]) -> Self {
        Self(hash)
    }

    /// Reads the bytes of a contract or of a `BINARY(32)` column; the error names the field `request_fingerprint`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidField> {
        let wrong = |_| InvalidField::new("request_fingerprint", format!("must be {} bytes", Self::LEN));
        bytes.try_into().map(Self).map_err(wrong)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In lower-case hexadecimal.
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
