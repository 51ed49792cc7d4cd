//! JWTs signed with HS256 under the shared secrets, each kind with an issuer of its own, so that none passes for
//! another.
//!
//! A token that was signed here begins with a known header, which is compared and not parsed. A crowd comes with tokens
//! that were not seen before, so a cache of tokens does not help.

use super::secrets::Secrets;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode_header,
    errors::{Error as JwtError, ErrorKind},
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::json;
use sha2::Sha256;
use stampede_vocab::Timestamp;
use std::borrow::Cow;
use uuid::Uuid;

/// Signs and reads tokens of one kind.
pub struct Jwt {
    header: Header,
    signing: EncodingKey,
    /// The keys; the first one signs.
    checking: Vec<Key>,
    validation: Validation,
    issuer: String,
}

/// A key that tokens are checked with.
struct Key {
    id: String,
    /// The prefix of tokens that this key signed here: their encoded header, and the dot after it.
    head: Option<String>,
    mac: Hmac<Sha256>,
    decoding: DecodingKey,
}

/// The claims that are validated for tokens of all kinds.
#[derive(Deserialize)]
struct Checked<'t> {
    exp: i64,
    #[serde(borrow)]
    iss: Cow<'t, str>,
    /// Must be present.
    #[serde(borrow, rename = "sub")]
    _sub: Cow<'t, str>,
    /// The audience, in a token of another system that has the same secret.
    aud: Option<IgnoredAny>,
}

impl Key {
    fn new(id: String, secret: &[u8]) -> Self {
        Self {
            head: head_of(&id, secret),
            id,
            mac: Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length"),
            decoding: DecodingKey::from_secret(secret),
        }
    }

    /// Returns the claims of a token with this head, as JSON; `None` if this key has not signed it.
    fn claims_of(&self, head: &str, token: &str) -> Option<Vec<u8>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let claims = signed.strip_prefix(head)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut mac = self.mac.clone();
        mac.update(signed.as_bytes());
        // Compared in constant time, before anything is parsed.
        mac.verify_slice(&signature).ok()?;
        URL_SAFE_NO_PAD.decode(claims).ok()
    }
}

/// Returns the prefix that the library writes for a key of this name: the encoded header, and the dot after it.
fn head_of(id: &str, secret: &[u8]) -> Option<String> {
    let token = jsonwebtoken::encode(&header(id), &json!({}), &EncodingKey::from_secret(secret)).ok()?;
    let (head, _) = token.split_once('.')?;
    Some(format!("{head}."))
}

fn header(id: &str) -> Header {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(id.to_owned());
    header
}

impl Jwt {
    /// Takes the shared secrets. Refuses tokens of another issuer, without an expiry, or expired.
    pub fn new(secrets: &Secrets, issuer: &str) -> Self {
        let (id, secret) = secrets.keys().next().expect("there is a key that signs");
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        // By RFC 7519 a token is refused on its last second too.
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self {
            header: header(&id),
            signing: EncodingKey::from_secret(secret),
            checking: secrets.keys().map(|(id, secret)| Key::new(id, secret)).collect(),
            validation,
            issuer: issuer.to_owned(),
        }
    }

    /// Returns the claims as a token, which names its key.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, JwtError> {
        jsonwebtoken::encode(&self.header, claims, &self.signing)
    }

    /// Returns the claims of a token that is valid now. One without a key id, as the command line makes them, may be
    /// signed by any key.
    pub fn read<C: DeserializeOwned>(&self, token: &str) -> Result<C, JwtError> {
        let own = self.checking.iter().find_map(|key| {
            let head = key.head.as_deref()?;
            token.starts_with(head).then_some((key, head))
        });
        match own {
            Some((key, head)) => self.read_own(key, head, token),
            None => self.read_by_library(token),
        }
    }

    /// Reads a token with the head of this key.
    fn read_own<C: DeserializeOwned>(&self, key: &Key, head: &str, token: &str) -> Result<C, JwtError> {
        let unreadable = |_| JwtError::from(ErrorKind::InvalidToken);
        let claims = key.claims_of(head, token).ok_or(ErrorKind::InvalidSignature)?;
        let checked: Checked<'_> = serde_json::from_slice(&claims).map_err(unreadable)?;
        // By RFC 7519 a token is refused on its last second too. By the clock that gateways share, by which it was
        // issued; the library uses that of the machine.
        if checked.exp <= Timestamp::now().micros() / 1_000_000 {
            return Err(ErrorKind::ExpiredSignature.into());
        }
        if checked.iss != self.issuer {
            return Err(ErrorKind::InvalidIssuer.into());
        }
        // By RFC 7519 a token is refused by whoever is not in its audience, and no token that is signed here has one.
        if checked.aud.is_some() {
            return Err(ErrorKind::InvalidAudience.into());
        }
        serde_json::from_slice(&claims).map_err(unreadable)
    }

    /// Reads a token whose head is not that of a key.
    fn read_by_library<C: DeserializeOwned>(&self, token: &str) -> Result<C, JwtError> {
        // With one key there is nothing to choose: a token of another key does not verify.
        if let [only] = self.checking.as_slice() {
            return self.read_with(&only.decoding, token);
        }
        let named = decode_header(token)?.kid;
        let keys = self.checking.iter().filter(|key| named.as_ref().is_none_or(|named| *named == key.id));
        let mut outcome = Err(ErrorKind::InvalidSignature.into());
        for key in keys {
            outcome = self.read_with(&key.decoding, token);
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

/// Returns 128 random bits in hex.
pub fn random_id() -> String {
    Uuid::from_u128(rand::random()).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;
    use serde_json::Value;

    const ISSUER: &str = "stampede/test";
    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "another secret of thirty-two bytes";
    const LATER: i64 = 4_000_000_000;

    fn jwt(signing: &str, other: Option<&str>, issuer: &str) -> Jwt {
        let other = other.map(SecretString::from);
        Jwt::new(&Secrets::new(&SecretString::from(signing), other.as_ref()).unwrap(), issuer)
    }

    fn signed(by: &Jwt, exp: i64) -> String {
        by.sign(&json!({"sub": "usr_1", "exp": exp, "iss": by.issuer, "more": ["\u{e9}"]})).unwrap()
    }

    /// Returns the claims, or whether they are refused because of the time.
    fn outcome(read: Result<Value, JwtError>) -> Result<Value, bool> {
        read.map_err(|error| matches!(error.kind(), ErrorKind::ExpiredSignature))
    }

    /// Reads a token. The outcome must be that of the library.
    fn read(jwt: &Jwt, token: &str) -> Result<Value, bool> {
        let read = outcome(jwt.read(token));
        assert_eq!(read, outcome(jwt.read_by_library(token)), "{token}");
        read
    }

    #[test]
    fn what_was_signed_here_is_read_as_the_library_reads_it() {
        for other in [None, Some(OTHER)] {
            let jwt = jwt(ONE, other, ISSUER);
            let token = signed(&jwt, LATER);
            let head = jwt.checking[0].head.as_deref().unwrap();
            assert!(token.starts_with(head), "{token} does not begin with {head}");
            assert_eq!(read(&jwt, &token).unwrap()["sub"], "usr_1");
            assert_eq!(read(&jwt, &signed(&jwt, 10)), Err(true), "it has expired");
        }
        let of_other = signed(&jwt(OTHER, None, ISSUER), LATER);
        assert!(read(&jwt(ONE, Some(OTHER), ISSUER), &of_other).is_ok());
        assert_eq!(read(&jwt(ONE, None, ISSUER), &of_other), Err(false), "it has another key");
        assert_eq!(read(&jwt(ONE, None, ISSUER), &signed(&jwt(ONE, None, "stampede"), LATER)), Err(false), "its kind");
    }

    #[test]
    fn a_signature_is_not_enough_where_a_claim_is_missing_or_for_others() {
        let jwt = jwt(ONE, None, ISSUER);
        let whole = json!({"sub": "usr_1", "exp": LATER, "iss": ISSUER});
        assert!(read(&jwt, &jwt.sign(&whole).unwrap()).is_ok());
        for (name, value) in [
            ("aud", json!("another")),
            ("aud", json!(["stampede", "another"])),
            ("sub", json!(null)),
            ("sub", json!(1)),
            ("iss", json!(null)),
            ("iss", json!(["stampede"])),
            ("exp", json!(null)),
            ("exp", json!("4000000000")),
        ] {
            let mut claims = whole.clone();
            claims[name] = value;
            assert_eq!(read(&jwt, &jwt.sign(&claims).unwrap()), Err(false), "{claims}");
        }
    }

    #[test]
    fn no_letter_of_a_token_can_be_another() {
        let jwt = jwt(ONE, Some(OTHER), ISSUER);
        let token = signed(&jwt, LATER);
        for (place, letter) in token.char_indices() {
            let mut forged = token.clone();
            forged.replace_range(place..=place, if letter == 'A' { "B" } else { "A" });
            assert_eq!(read(&jwt, &forged), Err(false), "{forged}");
            assert_eq!(read(&jwt, &token[..place]), Err(false), "cut at {place}");
        }
        for more in [".", "A", "=", ".A", " "] {
            assert_eq!(read(&jwt, &format!("{token}{more}")), Err(false), "{more:?}");
        }
    }
}
