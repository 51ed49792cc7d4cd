//! Refresh tokens after the first: `rt_<family>_<secret>`, both random. The family is where Redis keeps the hash of the
//! valid one.

use sha2::{Digest, Sha256};
use stampede_status::{Problem, Reason};
use std::fmt::Write;

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
    /// A new token of this family.
    pub fn of_family(family: &str) -> Self {
        Self { family: family.to_owned(), secret: fresh_secret() }
    }

    /// Reads what a caller presents.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        text.strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .filter(|(family, secret)| hex(family, FAMILY_LEN) && hex(secret, SECRET_LEN))
            .map(|(family, secret)| Self { family: family.to_owned(), secret: secret.to_owned() })
            .ok_or_else(|| Problem::new(Reason::Unauthenticated, "the refresh token is not valid"))
    }

    /// Name of the family.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// The text for its owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.family, self.secret)
    }

    /// Returns the hash to be stored: SHA-256 in hex. The secret has 256 random bits, so a plain hash is enough.
    pub fn hash(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.secret.as_bytes()) {
            write!(hex, "{byte:02x}").expect("a string takes any text");
        }
        hex
    }
}

/// From the generator of the thread, which is seeded by the system and fit for secrets.
fn fresh_secret() -> String {
    let [high, low]: [u128; 2] = rand::random();
    format!("{high:032x}{low:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_reads_back_and_the_next_one_stays_in_the_family() {
        let first = RefreshToken::of_family(FAMILY);
        let next = RefreshToken::of_family(first.family());
        assert!(RefreshToken::parse(&first.reveal()).is_ok_and(|read| read == first));
        assert_eq!(first.family(), next.family());
        assert_ne!(first.hash(), next.hash());
        assert_eq!(first.hash().len(), 64);
        assert!(!first.hash().contains(&first.secret));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = RefreshToken::of_family(FAMILY).reveal();
        for text in ["", "rt_", "rt__", &good[3..], &good[..good.len() - 1], &good.to_uppercase(), &format!("{good}0")]
        {
            assert!(RefreshToken::parse(text).is_err(), "{text}");
        }
    }
}
