//! `stampede token --mesh`: the entry by which a service authenticates the caller of its own port.

use super::{Args, Role};
use crate::output::{Output, print_json, print_text};
use anyhow::Context;
use serde::Serialize;
use stampede_identity::{Caller, Claim, IDENTITY_METADATA, Keys, Role as MeshRole, Scope, User};
use stampede_vocab::{Process, Timestamp, UserId};

#[derive(Serialize)]
struct Made {
    metadata: &'static str,
    identity: String,
}

/// Prints the entry, which is valid for all methods that its caller may call.
pub fn run(args: &Args, secret: &str, output: Output) -> anyhow::Result<()> {
    let keys = Keys::parse(secret).context("--mesh-secret")?;
    let until_s = Timestamp::now().micros() / 1_000_000 + i64::from(args.ttl_s);
    let user = args.user.unwrap_or_else(UserId::random).to_string();
    let (role, user) = match args.from {
        Caller::Process(Process::Service(_) | Process::Sandbox) => (MeshRole::Service, User::Nobody),
        Caller::Operator | Caller::Process(Process::Gateway) if args.any_user => (role(args.role), User::Any),
        Caller::Operator | Caller::Process(Process::Gateway) => (role(args.role), User::One(&user)),
    };
    let claim = Claim { caller: args.from, role: Some(role), user };
    let made = Made { metadata: IDENTITY_METADATA, identity: keys.sign(claim, Scope::All, until_s)? };
    if output.json { print_json(&made) } else { print_text(made.identity) }
}

const fn role(role: Role) -> MeshRole {
    match role {
        Role::Buyer => MeshRole::Buyer,
        Role::Operator => MeshRole::Operator,
    }
}
