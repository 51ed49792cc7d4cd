//! Access tokens: JWTs signed with HS256.

use super::{
    jwt::{Jwt, random_id},
    secrets::{SecretError, Secrets},
    verified::Verified,
};
use jsonwebtoken::errors::ErrorKind;
use serde::{Deserialize, Serialize};
use stampede_chassis::{Identity, Role};
use stampede_status::{Problem, Reason};
use std::sync::Arc;

const ISSUER: &str = "stampede";

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Id of the user.
    pub sub: String,
    /// `buyer` or `operator`.
    pub role: String,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// When it expires, in seconds since the epoch.
    pub exp: i64,
    /// Always `stampede`.
    pub iss: String,
    /// Makes two tokens of the same second different.
    pub jti: String,
    /// The family of refresh tokens that it was issued with; absent in one made by the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
}

/// The user that a token is issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub user: String,
    pub role: Role,
    /// The family of refresh tokens that it comes with.
    pub family: String,
}

/// Signs and checks access tokens.
pub struct AccessTokens {
    jwt: Jwt,
    verified: Verified,
}

impl AccessTokens {
    /// Takes the shared secrets. Signs and checks one token at once, so that an invalid secret fails the start.
    pub fn new(secrets: &Secrets) -> Result<Self, SecretError> {
        let tokens = Self { jwt: Jwt::new(secrets, ISSUER), verified: Verified::default() };
        tokens.try_out()?;
        Ok(tokens)
    }

    fn try_out(&self) -> Result<(), SecretError> {
        let holder = Holder { user: "usr_0".to_owned(), role: Role::Buyer, family: "0".to_owned() };
        let claims = Claims::new(&holder, 0, i64::from(u32::MAX));
        self.jwt
            .sign(&claims)
            .and_then(|token| self.jwt.read::<Claims>(&token))
            .map(drop)
            .map_err(|error| SecretError::Crypto(error.to_string()))
    }

    /// Returns a token for `holder`, valid from `iat` to `exp` (seconds since the epoch).
    pub fn issue(&self, holder: &Holder, iat: i64, exp: i64) -> Result<String, Problem> {
        self.jwt.sign(&Claims::new(holder, iat, exp)).map_err(Problem::internal_error)
    }

    /// Returns the claims of a token, and the identity that they name. Fails with `TOKEN_EXPIRED` if it has expired,
    /// else with `UNAUTHENTICATED`. Does not check whether its login was revoked.
    pub fn check(&self, token: &str) -> Result<(Arc<Claims>, Identity), Problem> {
        let claims = self.verified.claims(token, || self.jwt.read(token)).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Problem::new(Reason::TokenExpired, "the access token has expired"),
            _ => not_ours(),
        })?;
        match claims.role.parse::<Role>() {
            Ok(role @ (Role::Buyer | Role::Operator)) => {
                let user_id = claims.sub.clone();
                Ok((claims, Identity { user_id, role }))
            }
            // Services have no access tokens, so such a token was not issued here.
            Ok(Role::Service) | Err(_) => Err(not_ours()),
        }
    }
}

impl Claims {
    fn new(holder: &Holder, iat: i64, exp: i64) -> Self {
        Self {
            sub: holder.user.clone(),
            role: holder.role.as_str().to_owned(),
            iat,
            exp,
            iss: ISSUER.to_owned(),
            jti: random_id(),
            family: Some(holder.family.clone()),
        }
    }

    /// Returns the name by which the token is revoked: its family, or its own for one that has none.
    pub fn login(&self) -> &str {
        self.family.as_deref().unwrap_or(&self.jti)
    }
}

fn not_ours() -> Problem {
    Problem::new(Reason::Unauthenticated, "the access token is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    const LATER: i64 = 4_000_000_000;
    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "another secret of thirty-two bytes";

    fn tokens(signing: &str, other: Option<&str>) -> AccessTokens {
        let other = other.map(SecretString::from);
        AccessTokens::new(&Secrets::new(&SecretString::from(signing), other.as_ref()).unwrap()).unwrap()
    }

    fn ours() -> AccessTokens {
        tokens(ONE, None)
    }

    fn holder(role: Role) -> Holder {
        Holder { user: "usr_1".to_owned(), role, family: "f1".to_owned() }
    }

    fn good(tokens: &AccessTokens) -> String {
        tokens.issue(&holder(Role::Buyer), 5, LATER).unwrap()
    }

    #[test]
    fn a_token_says_who_calls() {
        let token = ours().issue(&holder(Role::Operator), 5, LATER).unwrap();
        let (claims, identity) = ours().check(&token).unwrap();
        assert_eq!(identity, Identity { user_id: "usr_1".into(), role: Role::Operator });
        assert_eq!((claims.iat, claims.exp, claims.iss.as_str()), (5, LATER, "stampede"));
        assert_eq!(claims.login(), "f1");
    }

    #[test]
    fn what_was_not_signed_by_us_or_has_expired_is_refused() {
        let token = good(&ours());
        let mut forged = token.clone();
        forged.replace_range(0..1, "x");
        let expired = ours().issue(&holder(Role::Buyer), 5, 10).unwrap();
        let service = ours().issue(&holder(Role::Service), 5, LATER).unwrap();
        // {"alg":"none"} with the same claims and no signature.
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
        for checking in [ours(), tokens(ONE, Some("a third secret, of thirty-two bytes"))] {
            for (token, reason) in [
                (&forged, Reason::Unauthenticated),
                (&good(&tokens(OTHER, None)), Reason::Unauthenticated),
                (&unsigned, Reason::Unauthenticated),
                (&service, Reason::Unauthenticated),
                (&String::new(), Reason::Unauthenticated),
                (&expired, Reason::TokenExpired),
            ] {
                for _ in 0..2 {
                    assert_eq!(checking.check(token).unwrap_err().reason(), reason, "{token}");
                }
            }
        }
    }

    #[test]
    fn a_key_is_changed_while_tokens_of_both_are_good() {
        let (before, after) = (good(&tokens(ONE, None)), good(&tokens(OTHER, None)));
        // First every gateway learns the new key, then it signs with it, then the old one goes.
        for checking in [tokens(ONE, Some(OTHER)), tokens(OTHER, Some(ONE))] {
            for token in [&before, &after] {
                assert!(checking.check(token).is_ok(), "{token}");
            }
        }
        assert!(tokens(OTHER, None).check(&before).is_err());
    }

    #[test]
    fn a_token_that_names_no_key_may_be_of_any() {
        let claims = Claims { family: None, ..Claims::new(&holder(Role::Buyer), 5, LATER) };
        let by_hand = |secret: &str| {
            let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
        };
        for secret in [ONE, OTHER] {
            let (read, _) = tokens(ONE, Some(OTHER)).check(&by_hand(secret)).unwrap();
            assert_eq!(read.login(), claims.jti);
        }
    }
}
