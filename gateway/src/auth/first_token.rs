//! First refresh tokens: `rf_<JWT>`. The whole state of a login is in its first token, signed, so that nothing is
//! stored for a login until it is refreshed.
//!
//! Only Redis knows whether it was used (`stampede_lua::gate`).

use super::{jwt::Jwt, secrets::Secrets};
use jsonwebtoken::errors::ErrorKind;
use serde::{Deserialize, Serialize};
use stampede_chassis::Role;
use stampede_lua::gate::{Epoch, FirstToken, Timestamp, UserId};
use stampede_status::{Problem, Reason};
use std::time::Duration;

/// Prefix of first refresh tokens; later ones have another.
const PREFIX: &str = "rf_";
/// Not that of access tokens: a refresh token is no access token.
const ISSUER: &str = "stampede/refresh";
const MICROS_PER_SECOND: i64 = 1_000_000;

/// The claims of the token.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// Id of the user.
    sub: String,
    role: String,
    /// End of its time, in seconds since the epoch.
    exp: i64,
    iss: String,
    /// The family that it opens.
    jti: String,
    /// Name of the epoch of Redis in which it was issued.
    epoch: String,
}

/// Signs and checks first refresh tokens.
pub struct FirstTokens {
    jwt: Jwt,
}

impl FirstTokens {
    pub fn new(secrets: &Secrets) -> Self {
        Self { jwt: Jwt::new(secrets, ISSUER) }
    }

    /// Issues the first token of `family`, a new one, in this epoch.
    pub fn issue(
        &self,
        family: &str,
        user: UserId,
        role: Role,
        epoch: &Epoch,
        life: Duration,
    ) -> Result<String, Problem> {
        let life_s = i64::try_from(life.as_secs()).unwrap_or(i64::MAX / MICROS_PER_SECOND / 2);
        let claims = Claims {
            sub: user.to_string(),
            role: role.as_str().to_owned(),
            exp: epoch.now.micros() / MICROS_PER_SECOND + life_s,
            iss: ISSUER.to_owned(),
            jti: family.to_owned(),
            epoch: epoch.name.clone(),
        };
        let signed = self.jwt.sign(&claims).map_err(Problem::internal_error)?;
        Ok(format!("{PREFIX}{signed}"))
    }

    /// Reads a first token; `None` for a text that does not claim to be one.
    pub fn read(&self, text: &str) -> Option<Result<FirstToken, Problem>> {
        text.strip_prefix(PREFIX).map(|signed| self.check(signed))
    }

    fn check(&self, signed: &str) -> Result<FirstToken, Problem> {
        let claims: Claims = self.jwt.read(signed).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Problem::new(Reason::TokenExpired, "the refresh token has expired"),
            _ => not_ours(),
        })?;
        Ok(FirstToken {
            user: claims.sub.parse().map_err(|_| not_ours())?,
            family: claims.jti,
            role: claims.role,
            epoch: claims.epoch,
            expires_at: Timestamp::from_micros(claims.exp.saturating_mul(MICROS_PER_SECOND)),
        })
    }
}

fn not_ours() -> Problem {
    Problem::new(Reason::Unauthenticated, "the refresh token is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::access_token::{AccessTokens, Holder};
    use secrecy::SecretString;

    const LIFE: Duration = Duration::from_secs(60);

    fn secrets(text: &str) -> Secrets {
        Secrets::new(&SecretString::from(text), None).unwrap()
    }

    fn ours() -> FirstTokens {
        FirstTokens::new(&secrets("0123456789abcdef0123456789abcdef"))
    }

    fn epoch(now_s: i64) -> Epoch {
        Epoch { name: "e1".to_owned(), now: Timestamp::from_micros(now_s * MICROS_PER_SECOND) }
    }

    #[test]
    fn a_token_reads_back_and_opens_its_family() {
        let user = UserId::random();
        let later = epoch(4_000_000_000);
        let text = ours().issue("f1", user, Role::Buyer, &later, LIFE).unwrap();
        let read = ours().read(&text).unwrap().unwrap();
        assert_eq!((read.user, read.role.as_str(), read.epoch.as_str()), (user, "buyer", "e1"));
        assert_eq!(read.expires_at.micros(), 4_000_000_060 * MICROS_PER_SECOND);
        assert_eq!(read.family, "f1");
    }

    #[test]
    fn what_was_not_signed_by_us_as_a_first_token_is_refused() {
        let reason = |text: &str| ours().read(text).unwrap().unwrap_err().reason();
        let user = UserId::random();
        let foreign = FirstTokens::new(&secrets("another secret of thirty-two bytes"));
        let foreign = foreign.issue("f1", user, Role::Buyer, &epoch(4_000_000_000), LIFE).unwrap();
        assert_eq!(reason(&foreign), Reason::Unauthenticated);
        let access = AccessTokens::new(&secrets("0123456789abcdef0123456789abcdef")).unwrap();
        let holder = Holder { user: user.to_string(), role: Role::Buyer, family: "f1".to_owned() };
        let issued = access.issue(&holder, 5, 4_000_000_000).unwrap();
        assert_eq!(reason(&format!("{PREFIX}{issued}")), Reason::Unauthenticated);
        let old = ours().issue("f1", user, Role::Buyer, &epoch(5), LIFE).unwrap();
        assert_eq!(reason(&old), Reason::TokenExpired);
        assert!(ours().read(&issued).is_none(), "it does not claim to be one");
        let first = ours().issue("f1", user, Role::Buyer, &epoch(4_000_000_000), LIFE).unwrap();
        let signed = first.strip_prefix(PREFIX).unwrap();
        assert_eq!(access.check(signed).unwrap_err().reason(), Reason::Unauthenticated, "nor is it an access token");
    }
}
