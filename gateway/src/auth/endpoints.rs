//! The token endpoints of the gateway: issue, verify, refresh.

use super::{access_token::AccessTokens, first_token::FirstTokens, jwt::random_id, refresh_token::RefreshToken};
use serde::Serialize;
use serde_json::{Map, Value};
use stampede_chassis::Role;
use stampede_lua::{
    Redis, RedisError,
    gate::{self, Epoch, FirstToken, Rotation, Timestamp, UserId},
};
use stampede_status::{Problem, Reason};
use std::time::Duration;

use crate::transcode::{object, unknown_field};

/// How long tokens live.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    /// An access token.
    pub access: Duration,
    /// A refresh token.
    pub refresh: Duration,
}

/// Issues, checks and refreshes tokens.
pub struct Auth {
    pub tokens: AccessTokens,
    first: FirstTokens,
    redis: Redis,
    lives: Lives,
}

/// The answer to a buyer: the pair, and the expiry of each.
#[derive(Debug, Serialize)]
pub struct TokenPair {
    user_id: String,
    access_token: String,
    access_expires_at: String,
    refresh_token: String,
    refresh_expires_at: String,
}

/// Whether an access token is valid, and whom it names.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Auth {
    /// Keeps in `redis` which refresh tokens were used.
    pub fn new(tokens: AccessTokens, first: FirstTokens, redis: Redis, lives: Lives) -> Self {
        Self { tokens, first, redis, lives }
    }

    /// A new anonymous buyer with a first pair of tokens.
    pub async fn issue(&self, body: &[u8]) -> Result<TokenPair, Problem> {
        fields(body, &[])?;
        let (user, role) = (UserId::random(), Role::Buyer);
        let epoch = self.epoch().await?;
        let refresh = self.first.issue(user, role, &epoch, self.lives.refresh)?;
        self.pair(user, role, refresh, epoch.now)
    }

    /// Returns whether the token in the body is valid now. An invalid token is an answer, not an error.
    pub fn verify(&self, body: &[u8]) -> Result<Verification, Problem> {
        let token = text(&fields(body, &["access_token"])?, "access_token")?;
        let Ok((claims, identity)) = self.tokens.check(&token) else { return Ok(Verification::default()) };
        Ok(Verification {
            active: true,
            user_id: Some(identity.user_id),
            role: Some(identity.role.as_str()),
            expires_at: Some(rfc3339(claims.exp)),
        })
    }

    /// The next pair for a refresh token that was not used before.
    pub async fn refresh(&self, body: &[u8]) -> Result<TokenPair, Problem> {
        let presented = text(&fields(body, &["refresh_token"])?, "refresh_token")?;
        let (next, rotation) = match self.first.read(&presented) {
            Some(first) => self.open(&first?).await?,
            None => self.rotate(&RefreshToken::parse(&presented)?).await?,
        };
        match rotation {
            Rotation::Rotated { user, role, at } => {
                let role = role.parse().map_err(|_| Problem::internal_error(format!("a family of role {role}")))?;
                self.pair(user, role, next.reveal(), at)
            }
            Rotation::Reused => Err(Problem::new(
                Reason::TokenReused,
                "the refresh token was used before; all tokens that came from it are refused from now on",
            )),
            Rotation::Unknown => {
                Err(Problem::new(Reason::TokenExpired, "the refresh token has expired, or was never issued"))
            }
        }
    }

    async fn open(&self, first: &FirstToken) -> Result<(RefreshToken, Rotation), Problem> {
        let next = RefreshToken::of_family(&first.family);
        let epoch = self.epoch().await?;
        let opened = gate::open(&self.redis, first, &epoch, &next.hash(), self.lives.refresh).await;
        Ok((next, opened.map_err(unavailable)?))
    }

    async fn rotate(&self, presented: &RefreshToken) -> Result<(RefreshToken, Rotation), Problem> {
        let (family, life) = (presented.family(), self.lives.refresh);
        let next = RefreshToken::of_family(family);
        let rotated = gate::rotate(&self.redis, family, &presented.hash(), &next.hash(), life).await;
        Ok((next, rotated.map_err(unavailable)?))
    }

    async fn epoch(&self) -> Result<Epoch, Problem> {
        gate::epoch(&self.redis, &random_id()).await.map_err(unavailable)
    }

    fn pair(&self, user: UserId, role: Role, refresh_token: String, now: Timestamp) -> Result<TokenPair, Problem> {
        let now_s = now.micros() / 1_000_000;
        let access_exp = now_s + whole_seconds(self.lives.access);
        let user_id = user.to_string();
        Ok(TokenPair {
            access_token: self.tokens.issue(&user_id, role, now_s, access_exp)?,
            access_expires_at: rfc3339(access_exp),
            refresh_token,
            refresh_expires_at: rfc3339(now_s + whole_seconds(self.lives.refresh)),
            user_id,
        })
    }
}

/// The fields of a body that may have only these; an empty body has none.
pub(super) fn fields(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, Problem> {
    let object = object(body)?;
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(unknown_field(name)),
        None => Ok(object),
    }
}

pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Result<String, Problem> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Problem::invalid_field(name, "must be a string")),
        None => Err(Problem::invalid_field(name, "is missing")),
    }
}

fn unavailable(error: RedisError) -> Problem {
    Problem::unavailable("the token store", error)
}

fn whole_seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 2)
}

pub(super) fn rfc3339(seconds: i64) -> String {
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}
