//! The token endpoints of the gateway: issue, verify, refresh, revoke.

use super::{
    access_token::{AccessTokens, Holder},
    caller::Caller,
    first_token::FirstTokens,
    jwt::random_id,
    refresh_token::RefreshToken,
    revoked::Revoked,
    secrets::{SecretError, Secrets},
    session::{Session, login_ended},
};
use crate::{
    acts::{Act, Actor, Acts},
    transcode::{object, unknown_field},
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value};
use stampede_chassis::{Block, Role};
use stampede_lua::{
    Redis, RedisError,
    gate::{self, Epoch, Next, Rotation, Timestamp, UserId},
};
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Duration};

/// Lifetimes of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    pub access: Duration,
    pub refresh: Duration,
    /// Time in which a refresh can be repeated.
    pub repeat: Duration,
}

/// Signs and reads tokens of each kind.
pub struct Tokens {
    access: AccessTokens,
    first: FirstTokens,
    secrets: Secrets,
}

impl Tokens {
    /// Fails on secrets that cannot sign and check a token.
    pub fn new(secrets: Secrets) -> Result<Self, SecretError> {
        Ok(Self { access: AccessTokens::new(&secrets)?, first: FirstTokens::new(&secrets), secrets })
    }
}

/// Issues, checks, refreshes and revokes tokens.
pub struct Auth {
    tokens: Tokens,
    revoked: Arc<Revoked>,
    acts: Arc<Acts>,
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

/// The validity of an access token, and the user that it names.
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
    /// Stores refresh tokens in `redis`, and counts logins and refreshes by `acts`.
    pub fn new(tokens: Tokens, revoked: Arc<Revoked>, acts: Arc<Acts>, redis: Redis, lives: Lives) -> Self {
        Self { tokens, revoked, acts, redis, lives }
    }

    /// Returns the caller that an access token names. Fails with `TOKEN_EXPIRED`, `TOKEN_REVOKED` or `UNAUTHENTICATED`
    /// if it is valid no more, or never was.
    pub fn check(&self, token: &str) -> Result<Caller, Problem> {
        let (claims, identity) = self.tokens.access.check(token)?;
        self.unless_revoked(Caller { identity, session: Session::new(claims.login().to_owned(), claims.exp) })
    }

    /// Returns the caller, whose token or ticket is valid by itself. Fails with `TOKEN_REVOKED` if their login has
    /// ended meanwhile.
    pub fn unless_revoked(&self, caller: Caller) -> Result<Caller, Problem> {
        if self.revoked.has(caller.session.login()) { Err(login_ended()) } else { Ok(caller) }
    }

    /// Waits for the end of a caller's session. Returns the reason.
    pub fn end_of(&self, caller: &Caller) -> BoxFuture<'static, Problem> {
        Box::pin(caller.session.clone().end(Arc::clone(&self.revoked)))
    }

    /// Returns a first pair of tokens, for a new anonymous buyer.
    pub async fn issue(&self, body: &[u8], block: Option<Block>) -> Result<TokenPair, Problem> {
        fields(body, &[])?;
        self.acts.admit(Act::Login, &Actor { block, ..Actor::default() }).await?;
        let (user, role, family) = (UserId::random(), Role::Buyer, random_id());
        let epoch = self.epoch().await?;
        let refresh = self.tokens.first.issue(&family, user, role, &epoch, self.lives.refresh)?;
        self.pair(Holder { user: user.to_string(), role, family }, refresh, epoch.now)
    }

    /// Returns whether the token in the body is valid now. An invalid token is an answer, not an error.
    pub fn verify(&self, body: &[u8]) -> Result<Verification, Problem> {
        let token = text(&fields(body, &["access_token"])?, "access_token")?;
        let Ok((claims, identity)) = self.tokens.access.check(&token) else { return Ok(Verification::default()) };
        if self.revoked.has(claims.login()) {
            return Ok(Verification::default());
        }
        Ok(Verification {
            active: true,
            user_id: Some(identity.user_id),
            role: Some(identity.role.as_str()),
            expires_at: Some(rfc3339(claims.exp)),
        })
    }

    /// Rotates a refresh token: returns the next pair for one that was not used before. For a while a repeat gets the
    /// same pair, as the answer may have been lost.
    pub async fn refresh(&self, body: &[u8], block: Option<Block>) -> Result<TokenPair, Problem> {
        let presented = text(&fields(body, &["refresh_token"])?, "refresh_token")?;
        let first = self.tokens.first.read(&presented).transpose()?;
        let later = if first.is_none() { Some(RefreshToken::parse(&presented)?) } else { None };
        let family = first.as_ref().map(|first| first.family.as_str()).or(later.as_ref().map(RefreshToken::family));
        let family = family.unwrap_or_default().to_owned();
        self.count_refresh(&family, block).await?;

        let next: Vec<_> =
            self.tokens.secrets.next_tokens(&presented).into_iter().map(|s| RefreshToken::new(&family, s)).collect();
        let hashes: Vec<_> = next.iter().map(RefreshToken::hash).collect();
        let to = Next { hashes: &hashes, life: self.lives.refresh, repeat: self.lives.repeat };
        let rotation = match (&first, &later) {
            (Some(first), _) => {
                self.require_room()?;
                gate::open(&self.redis, first, &self.epoch().await?, to).await
            }
            (None, Some(later)) => gate::rotate(&self.redis, &family, &later.hash(), to).await,
            (None, None) => Ok(Rotation::Unknown),
        };
        match rotation.map_err(unavailable)? {
            Rotation::Rotated { user, role, at, next: which } => {
                let role = role.parse().map_err(|_| Problem::internal_error(format!("a family of role {role}")))?;
                let next = next.get(which).ok_or_else(|| Problem::internal_error("a token that was not offered"))?;
                self.pair(Holder { user: user.to_string(), role, family }, next.reveal(), at)
            }
            Rotation::Reused => {
                self.refuse_access(&family).await?;
                Err(is_reused())
            }
            Rotation::Ended => Err(login_ended()),
            Rotation::Unknown => {
                Err(Problem::new(Reason::TokenExpired, "the refresh token has expired, or was never issued"))
            }
        }
    }

    /// Ends the login of the token in the body: none of its tokens is accepted any more. An invalid token changes
    /// nothing, and is no error (RFC 7009).
    pub async fn revoke(&self, body: &[u8], block: Option<Block>) -> Result<(), Problem> {
        let fields = fields(body, &["access_token", "refresh_token"])?;
        if fields.contains_key("access_token") && fields.contains_key("refresh_token") {
            return Err(Problem::invalid_field("refresh_token", "one token is enough: leave out the other"));
        }
        if fields.contains_key("access_token") {
            return self.revoke_access(&text(&fields, "access_token")?, block).await;
        }
        self.revoke_refresh(&text(&fields, "refresh_token")?, block).await
    }

    async fn revoke_access(&self, token: &str, block: Option<Block>) -> Result<(), Problem> {
        let Ok((claims, _)) = self.tokens.access.check(token) else { return Ok(()) };
        self.count_refresh(claims.login(), block).await?;
        match &claims.family {
            Some(family) => self.end_signed(family).await,
            None => {
                self.revoked.add(claims.login(), Timestamp::from_micros(claims.exp.saturating_mul(1_000_000))).await
            }
        }
    }

    async fn revoke_refresh(&self, token: &str, block: Option<Block>) -> Result<(), Problem> {
        if let Some(first) = self.tokens.first.read(token) {
            let Ok(first) = first else { return Ok(()) };
            self.count_refresh(&first.family, block).await?;
            return self.end_signed(&first.family).await;
        }
        let Ok(later) = RefreshToken::parse(token) else { return Ok(()) };
        let family = later.family();
        self.count_refresh(family, block).await?;
        let ended = gate::end(&self.redis, family, Some(&later.hash()), self.lives.refresh).await;
        if ended.map_err(unavailable)? { self.refuse_access(family).await } else { Ok(()) }
    }

    /// Ends a family that a signature names. Redis may have no entry for it yet, so this needs memory.
    async fn end_signed(&self, family: &str) -> Result<(), Problem> {
        self.refuse_access(family).await?;
        self.require_room()?;
        gate::end(&self.redis, family, None, self.lives.refresh).await.map(drop).map_err(unavailable)
    }

    /// Refuses the access tokens of a family, before the caller is answered. The newest was issued a moment ago at
    /// most.
    async fn refuse_access(&self, family: &str) -> Result<(), Problem> {
        let now = self.epoch().await?.now.max(Timestamp::now());
        self.revoked.add(family, now.plus(self.lives.access)).await
    }

    async fn count_refresh(&self, login: &str, block: Option<Block>) -> Result<(), Problem> {
        let actor = Actor { token: Some(login), block, ..Actor::default() };
        self.acts.admit(Act::Refresh, &actor).await
    }

    /// Fails if Redis is so full that one more login would endanger the sale.
    fn require_room(&self) -> Result<(), Problem> {
        if self.revoked.has_room() {
            return Ok(());
        }
        Err(Problem::new(Reason::Overloaded, "there is no room for more logins at the moment"))
    }

    async fn epoch(&self) -> Result<Epoch, Problem> {
        gate::epoch(&self.redis, &random_id()).await.map_err(unavailable)
    }

    fn pair(&self, holder: Holder, refresh_token: String, now: Timestamp) -> Result<TokenPair, Problem> {
        let now_s = now.micros() / 1_000_000;
        let access_exp = now_s + whole_seconds(self.lives.access);
        Ok(TokenPair {
            access_token: self.tokens.access.issue(&holder, now_s, access_exp)?,
            access_expires_at: rfc3339(access_exp),
            refresh_token,
            refresh_expires_at: rfc3339(now_s + whole_seconds(self.lives.refresh)),
            user_id: holder.user,
        })
    }
}

/// Reads the fields of a body, which may have only these; an empty body has none.
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

fn is_reused() -> Problem {
    let detail = "the refresh token was used before; all tokens that came from it are refused from now on";
    Problem::new(Reason::TokenReused, detail)
}

fn whole_seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 2)
}

pub(super) fn rfc3339(seconds: i64) -> String {
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}
