//! Refresh tokens after the first: `rt_<family>_<secret>`. The family is random, and is where Redis keeps the hash of
//! the valid one; the secret follows from the token before it, by a key that only gateways have.

use crate::hex::hex;
use sha2::{Digest, Sha256};
use stampede_status::{Problem, Reason};

const PREFIX: &str = "rt_";
/// 128 bits in hex.
const FAMILY_LEN: usize = 32;
/// 256 bits in hex.
const SECRET_LEN: usize = 64;

/// A refresh token. Its text is shown to its owner only.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    family: String,
    secret: String,
}

impl RefreshToken {
    /// Makes the token of this family with this secret, 256 bits in hex.
    pub fn new(family: &str, secret: String) -> Self {
        Self { family: family.to_owned(), secret }
    }

    /// Reads the token that a caller presents.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let is_hex =
            |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        text.strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .filter(|(family, secret)| is_hex(family, FAMILY_LEN) && is_hex(secret, SECRET_LEN))
            .map(|(family, secret)| Self { family: family.to_owned(), secret: secret.to_owned() })
            .ok_or_else(|| Problem::new(Reason::Unauthenticated, "the refresh token is not valid"))
    }

    pub fn family(&self) -> &str {
        &self.family
    }

    /// Returns the text for its owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.family, self.secret)
    }

    /// Returns the hash to be stored: SHA-256 in hex. The secret has 256 bits that nobody can guess, so a plain hash is
    /// enough.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.secret.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_reads_back_and_its_hash_does_not_tell_it() {
        let first = RefreshToken::new(FAMILY, "a".repeat(SECRET_LEN));
        assert!(RefreshToken::parse(&first.reveal()).is_ok_and(|read| read == first));
        assert_ne!(first.hash(), RefreshToken::new(FAMILY, "b".repeat(SECRET_LEN)).hash());
        assert_eq!(first.hash().len(), 64);
        assert!(!first.hash().contains(&first.secret));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = RefreshToken::new(FAMILY, "a".repeat(SECRET_LEN)).reveal();
        for text in ["", "rt_", "rt__", &good[3..], &good[..good.len() - 1], &good.to_uppercase(), &format!("{good}0")]
        {
            assert!(RefreshToken::parse(text).is_err(), "{text}");
        }
    }
}
