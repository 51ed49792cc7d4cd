//! JWTs signed with HS256 under the shared secret, each kind with an issuer of its own, so that none passes for
//! another.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::Error as JwtError};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// HS256 is as strong as its key, which should be as long as its hash.
const SHORTEST_SECRET: usize = 32;

/// A secret that tokens cannot be signed with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Too short to be safe.
    #[error(
        "--auth-secret (STAMPEDE_AUTH_SECRET) has {0} bytes and needs at least 32: make one with `openssl rand -hex 32`"
    )]
    TooShort(usize),
    /// The cryptography does not work.
    #[error("cannot sign and verify a token: {0}")]
    Crypto(String),
}

/// Signs and reads tokens of one kind.
pub struct Jwt {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl Jwt {
    /// Takes the shared secret. Tokens of another issuer than this, without an end or past it are not read.
    pub fn new(secret: &SecretString, issuer: &str) -> Result<Self, SecretError> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < SHORTEST_SECRET {
            return Err(SecretError::TooShort(secret.len()));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        // By RFC 7519 a token is refused on its last second too.
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Ok(Self { signing: EncodingKey::from_secret(secret), checking: DecodingKey::from_secret(secret), validation })
    }

    /// The claims as a token.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, JwtError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
    }

    /// The claims of a token that is valid now.
    pub fn read<C: DeserializeOwned>(&self, token: &str) -> Result<C, JwtError> {
        jsonwebtoken::decode(token, &self.checking, &self.validation).map(|data| data.claims)
    }
}

/// 128 random bits in hex.
pub fn random_id() -> String {
    Uuid::from_u128(rand::random()).simple().to_string()
}
