//! Access tokens: JWTs signed with HS256.

use super::jwt::{Jwt, SecretError, random_id};
use jsonwebtoken::errors::ErrorKind;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stampede_chassis::{Identity, Role};
use stampede_status::{Problem, Reason};

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
}

/// Signs and checks access tokens.
pub struct AccessTokens {
    jwt: Jwt,
}

impl AccessTokens {
    /// Takes the shared secret. Signs and checks one token at once, so that what does not work shows at start-up.
    pub fn new(secret: &SecretString) -> Result<Self, SecretError> {
        let tokens = Self { jwt: Jwt::new(secret, ISSUER)? };
        tokens.try_out()?;
        Ok(tokens)
    }

    fn try_out(&self) -> Result<(), SecretError> {
        let claims = Claims::new("usr_0", Role::Buyer, 0, i64::from(u32::MAX));
        self.jwt
            .sign(&claims)
            .and_then(|token| self.jwt.read::<Claims>(&token))
            .map(drop)
            .map_err(|error| SecretError::Crypto(error.to_string()))
    }

    /// A token for `user`, good from `iat` to `exp` (seconds since the epoch).
    pub fn issue(&self, user: &str, role: Role, iat: i64, exp: i64) -> Result<String, Problem> {
        self.jwt.sign(&Claims::new(user, role, iat, exp)).map_err(Problem::internal_error)
    }

    /// The claims of a token, and whom they name. `TOKEN_EXPIRED` if its time is up, else `UNAUTHENTICATED`.
    pub fn check(&self, token: &str) -> Result<(Claims, Identity), Problem> {
        let claims: Claims = self.jwt.read(token).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Problem::new(Reason::TokenExpired, "the access token has expired"),
            _ => not_ours(),
        })?;
        match claims.role.parse::<Role>() {
            Ok(role @ (Role::Buyer | Role::Operator)) => {
                let user_id = claims.sub.clone();
                Ok((claims, Identity { user_id, role }))
            }
            // A service has no token; one that says so was not made by us.
            Ok(Role::Service) | Err(_) => Err(not_ours()),
        }
    }
}

impl Claims {
    fn new(user: &str, role: Role, iat: i64, exp: i64) -> Self {
        Self {
            sub: user.to_owned(),
            role: role.as_str().to_owned(),
            iat,
            exp,
            iss: ISSUER.to_owned(),
            jti: random_id(),
        }
    }
}

fn not_ours() -> Problem {
    Problem::new(Reason::Unauthenticated, "the access token is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: i64 = 4_000_000_000;

    fn tokens(secret: &str) -> AccessTokens {
        AccessTokens::new(&SecretString::from(secret)).unwrap()
    }

    fn ours() -> AccessTokens {
        tokens("0123456789abcdef0123456789abcdef")
    }

    #[test]
    fn a_token_says_who_calls() {
        let token = ours().issue("usr_1", Role::Operator, 5, LATER).unwrap();
        let (claims, identity) = ours().check(&token).unwrap();
        assert_eq!(identity, Identity { user_id: "usr_1".into(), role: Role::Operator });
        assert_eq!((claims.iat, claims.exp, claims.iss.as_str()), (5, LATER, "stampede"));
    }

    #[test]
    fn what_was_not_signed_by_us_or_has_expired_is_refused() {
        let good = ours().issue("usr_1", Role::Buyer, 5, LATER).unwrap();
        let mut forged = good.clone();
        forged.replace_range(0..1, "x");
        let foreign = tokens("another secret of thirty-two bytes").issue("usr_1", Role::Buyer, 5, LATER).unwrap();
        let expired = ours().issue("usr_1", Role::Buyer, 5, 10).unwrap();
        let service = ours().issue("usr_1", Role::Service, 5, LATER).unwrap();
        // {"alg":"none"} with the same claims and no signature.
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
        for (token, reason) in [
            (forged, Reason::Unauthenticated),
            (foreign, Reason::Unauthenticated),
            (unsigned, Reason::Unauthenticated),
            (service, Reason::Unauthenticated),
            (String::new(), Reason::Unauthenticated),
            (expired, Reason::TokenExpired),
        ] {
            assert_eq!(ours().check(&token).unwrap_err().reason(), reason, "{token}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        let refused = AccessTokens::new(&SecretString::from("too short"));
        assert!(matches!(refused, Err(SecretError::TooShort(9))));
    }
}
