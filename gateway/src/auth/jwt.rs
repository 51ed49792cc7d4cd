//! JWTs signed with HS256 under the shared secrets, each kind with an issuer of its own, so that none passes for
//! another.

use super::secrets::Secrets;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode_header,
    errors::{Error as JwtError, ErrorKind},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// Signs and reads tokens of one kind.
pub struct Jwt {
    header: Header,
    signing: EncodingKey,
    /// The keys by their ids, the one that signs first.
    checking: Vec<(String, DecodingKey)>,
    validation: Validation,
}

impl Jwt {
    /// Takes the shared secrets. Tokens of another issuer than this, without an end or past it are not read.
    pub fn new(secrets: &Secrets, issuer: &str) -> Self {
        let (id, secret) = secrets.keys().next().expect("there is a key that signs");
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        // By RFC 7519 a token is refused on its last second too.
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self {
            header,
            signing: EncodingKey::from_secret(secret),
            checking: secrets.keys().map(|(id, secret)| (id, DecodingKey::from_secret(secret))).collect(),
            validation,
        }
    }

    /// The claims as a token, which names its key.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, JwtError> {
        jsonwebtoken::encode(&self.header, claims, &self.signing)
    }

    /// The claims of a token that is valid now. One that names no key, as the command line makes them, may be of any.
    pub fn read<C: DeserializeOwned>(&self, token: &str) -> Result<C, JwtError> {
        // With one key there is nothing to choose: what another one has signed does not fit.
        if let [(_, only)] = self.checking.as_slice() {
            return self.read_with(only, token);
        }
        let named = decode_header(token)?.kid;
        let keys = self.checking.iter().filter(|(id, _)| named.as_ref().is_none_or(|named| named == id));
        let mut outcome = Err(ErrorKind::InvalidSignature.into());
        for (_, key) in keys {
            outcome = self.read_with(key, token);
            if !matches!(&outcome, Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature)) {
                break;
            }
        }
        outcome
    }

    fn read_with<C: DeserializeOwned>(&self, key: &DecodingKey, token: &str) -> Result<C, JwtError> {
        jsonwebtoken::decode(token, key, &self.validation).map(|data| data.claims)
    }
}

/// 128 random bits in hex.
pub fn random_id() -> String {
    Uuid::from_u128(rand::random()).simple().to_string()
}
