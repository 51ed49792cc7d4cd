//! The signing keys of tokens: one that signs, and optionally one more that is accepted too, the previous or the next
//! one. So a key is rotated without logging anybody out.

use crate::hex::hex;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// HS256 is as strong as its key, which should be as long as its hash.
const SHORTEST: usize = 32;
/// Domain separation of key ids from other hashes of the key.
const KEY_ID: &[u8] = b"stampede key id\0";
/// Domain separation of refresh tokens from signatures: no JWT has a zero in it.
const NEXT_TOKEN: &[u8] = b"stampede next refresh token\0";
/// Bytes of an id: enough to distinguish two keys.
const KEY_ID_LEN: usize = 8;

/// A secret that tokens cannot be signed with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Too short to be safe.
    #[error("--{flag} has {bytes} bytes and needs at least 32: make one with `openssl rand -hex 32`")]
    TooShort {
        /// The flag that it comes from.
        flag: &'static str,
        bytes: usize,
    },
    /// The cryptography does not work.
    #[error("cannot sign and verify a token: {0}")]
    Crypto(String),
}

/// The keys; the first one signs.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Signs with the first, and accepts tokens that are signed with the other too.
    pub fn new(signing: &SecretString, other: Option<&SecretString>) -> Result<Self, SecretError> {
        let given = [("auth-secret", Some(signing)), ("auth-secret-other", other)];
        let secrets = given.into_iter().filter_map(|(flag, secret)| Some((flag, secret?)));
        let checked = secrets.map(|(flag, secret)| match secret.expose_secret().len() {
            bytes if bytes < SHORTEST => Err(SecretError::TooShort { flag, bytes }),
            _ => Ok(secret.clone()),
        });
        Ok(Self(checked.collect::<Result<_, _>>()?))
    }

    /// Returns the bytes of each key with its id.
    pub fn keys(&self) -> impl Iterator<Item = (String, &[u8])> {
        self.bytes().map(|secret| (key_id(secret), secret))
    }

    /// Returns the secret part of the token that follows from this one, by each key: 256 bits in hex. Nobody without
    /// the key can compute it, whatever tokens they have seen.
    pub fn next_tokens(&self, presented: &str) -> Vec<String> {
        let next = |secret: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
            mac.update(NEXT_TOKEN);
            mac.update(presented.as_bytes());
            hex(&mac.finalize().into_bytes())
        };
        self.bytes().map(next).collect()
    }

    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| secret.expose_secret().as_bytes())
    }
}

/// Returns the name of a key in the header of the tokens that it signs.
fn key_id(secret: &[u8]) -> String {
    let hash = Sha256::new().chain_update(KEY_ID).chain_update(secret).finalize();
    hex(&hash[..KEY_ID_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "another secret of thirty-two bytes";

    fn secrets(signing: &str, other: Option<&str>) -> Result<Secrets, SecretError> {
        Secrets::new(&SecretString::from(signing), other.map(SecretString::from).as_ref())
    }

    #[test]
    fn a_short_secret_is_refused_by_its_flag() {
        assert!(matches!(secrets("too short", None), Err(SecretError::TooShort { flag: "auth-secret", bytes: 9 })));
        let other = secrets(ONE, Some("too short"));
        assert!(matches!(other, Err(SecretError::TooShort { flag: "auth-secret-other", .. })));
    }

    #[test]
    fn the_next_token_follows_from_the_token_and_the_key() {
        let both = secrets(ONE, Some(OTHER)).unwrap().next_tokens("rt_1");
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|next| next.len() == 64));
        assert_ne!(both[0], both[1]);
        assert_eq!(secrets(OTHER, None).unwrap().next_tokens("rt_1"), [both[1].clone()]);
        assert_ne!(secrets(ONE, None).unwrap().next_tokens("rt_2")[0], both[0]);
    }

    #[test]
    fn a_key_has_a_name_that_does_not_tell_it() {
        let both = secrets(ONE, Some(OTHER)).unwrap();
        let names: Vec<_> = both.keys().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 2);
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() == 16));
    }
}
