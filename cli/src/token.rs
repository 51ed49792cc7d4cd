//! `stampede token`: makes the tokens that the gateway checks.

use crate::output::{Output, print_json, print_text};
use anyhow::{Context, ensure};
use clap::ValueEnum;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use stampede_vocab::{Clock, SystemClock, UserId};

/// Shortest secret that signs: the length of the hash.
const SHORTEST_SECRET: usize = 32;

/// Make a token, such as the operator's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  export TOKEN=$(stampede token --role operator)")]
pub struct Args {
    /// What the token allows
    #[arg(long, value_enum, default_value_t = Role::Operator)]
    role: Role,

    /// Whose token it is, a new user's by default: what was done with a request_id is repeated by the same user only
    #[arg(long, value_name = "USER_ID")]
    user: Option<UserId>,

    /// How long it is valid, in seconds
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    ttl_s: u32,

    /// The secret that the gateway checks tokens with, at least 32 bytes
    #[arg(long, env = "STAMPEDE_AUTH_SECRET", hide_env_values = true)]
    auth_secret: String,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Claims, orders and pays for itself
    Buyer,
    /// Creates events and campaigns, refunds, sees everything
    Operator,
}

/// What a token says; the gateway reads the same.
#[derive(Debug, Serialize)]
struct Claims {
    iss: &'static str,
    sub: String,
    role: Role,
    iat: i64,
    exp: i64,
    jti: String,
}

#[derive(Serialize)]
struct Made {
    user_id: UserId,
    access_token: String,
}

/// Prints a token.
pub fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let user_id = args.user.unwrap_or_else(UserId::random);
    let access_token = sign(user_id, args.role, i64::from(args.ttl_s), &args.auth_secret)?;
    if output.json {
        return print_json(&Made { user_id, access_token });
    }
    print_text(access_token)
}

/// A token of a new operator, valid for an hour.
pub fn operator_token(secret: &str) -> anyhow::Result<String> {
    sign(UserId::random(), Role::Operator, 3_600, secret)
}

fn sign(user: UserId, role: Role, ttl_s: i64, secret: &str) -> anyhow::Result<String> {
    ensure!(secret.len() >= SHORTEST_SECRET, "the auth secret has {} bytes, but needs {SHORTEST_SECRET}", secret.len());
    let now_s = SystemClock.now().micros() / 1_000_000;
    let claims = Claims {
        iss: "stampede",
        sub: user.to_string(),
        role,
        iat: now_s,
        exp: now_s + ttl_s,
        jti: UserId::random().to_string(),
    };
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .context("the token cannot be signed")
}
