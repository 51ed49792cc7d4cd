//! `stampede token`: makes the tokens that the gateway checks, one or as many as a load test has users, and the signed
//! entries that the services' own ports check.

mod mesh;

use crate::output::{Output, print_json, print_text};
use anyhow::{Context, ensure};
use clap::ValueEnum;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use stampede_identity::Caller;
use stampede_vocab::{Timestamp, UserId};

/// Shortest secret that signs: the length of the hash.
const SHORTEST_SECRET: usize = 32;

/// Make tokens, such as the operator's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  export TOKEN=$(stampede token --role operator)
  stampede token --role buyer --count 10000 --csv > tokens.csv
  grpcurl -plaintext -H \"x-stampede-identity: $(stampede token --mesh)\" 127.0.0.1:7103 list")]
pub struct Args {
    /// Role of the token
    #[arg(long, value_enum, default_value_t = Role::Operator)]
    role: Role,

    /// User of the token, a new one by default: a request_id is repeated by the same user only
    #[arg(long, value_name = "USER_ID")]
    user: Option<UserId>,

    /// Number of tokens, each of a new user
    #[arg(long, default_value_t = 1, conflicts_with = "user", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,

    /// Print a header and a line of user and token for each, as load generators read them
    #[arg(long)]
    csv: bool,

    /// Lifetime of the token, in seconds
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    ttl_s: u32,

    /// The secret that the gateway checks tokens with, at least 32 bytes
    #[arg(long, env = "STAMPEDE_AUTH_SECRET", hide_env_values = true, required_unless_present = "mesh")]
    auth_secret: Option<String>,

    /// Print the value of the metadata x-stampede-identity in place of a token: for calls of the services' own ports
    #[arg(long, requires = "mesh_secret", conflicts_with_all = ["count", "csv"])]
    mesh: bool,

    /// The secret by which the processes of the mesh authenticate each other
    #[arg(long, env = "STAMPEDE_MESH_SECRET", hide_env_values = true)]
    mesh_secret: Option<String>,

    /// Caller: an operator, the gateway, or a service for itself, which has no other role
    #[arg(long, requires = "mesh", value_name = "NAME", default_value = "operator")]
    from: Caller,

    /// The call is for the user in the metadata x-stampede-user: for load tests, which cannot sign for each user
    #[arg(long, requires = "mesh", conflicts_with = "user")]
    any_user: bool,
}

/// The role that a token grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Claims, orders and pays for itself
    Buyer,
    /// Creates events and campaigns, refunds, sees everything
    Operator,
}

/// The claims of a token; the gateway reads the same.
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

/// Prints the tokens. As JSON, one is an object and several are a list.
pub fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    ensure!(!(args.csv && output.json), "--csv and -o json exclude each other");
    if let (true, Some(secret)) = (args.mesh, &args.mesh_secret) {
        return mesh::run(args, secret, output);
    }
    let secret = args.auth_secret.as_deref().context("--auth-secret is missing")?;
    let users = (0..args.count).map(|_| args.user.unwrap_or_else(UserId::random));
    let make = |user_id| -> anyhow::Result<Made> {
        let access_token = sign(user_id, args.role, i64::from(args.ttl_s), secret)?;
        Ok(Made { user_id, access_token })
    };
    let made = users.map(make).collect::<anyhow::Result<Vec<_>>>()?;
    match &made[..] {
        [one] if output.json => print_json(one),
        all if output.json => print_json(&all),
        all if args.csv => print_text(csv(all)),
        all => print_text(all.iter().map(|one| one.access_token.as_str()).collect::<Vec<_>>().join("\n")),
    }
}

fn csv(made: &[Made]) -> String {
    let lines = made.iter().map(|Made { user_id, access_token }| format!("{user_id},{access_token}"));
    std::iter::once("user,token".to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Returns a token of a new operator, valid for an hour.
pub fn operator_token(secret: &str) -> anyhow::Result<String> {
    sign(UserId::random(), Role::Operator, 3_600, secret)
}

/// Returns a token of this buyer, valid for an hour.
pub fn buyer_token(user: UserId, secret: &str) -> anyhow::Result<String> {
    sign(user, Role::Buyer, 3_600, secret)
}

fn sign(user: UserId, role: Role, ttl_s: i64, secret: &str) -> anyhow::Result<String> {
    ensure!(secret.len() >= SHORTEST_SECRET, "the auth secret has {} bytes, but needs {SHORTEST_SECRET}", secret.len());
    let now_s = Timestamp::now().micros() / 1_000_000;
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
