//! Lets a call in, or refuses it, before its handler runs: by who has signed it and by what the contract says of the
//! method. Where nothing is said, everybody is refused.
//!
//! The handler learns who calls as an [`Identity`]. What is whose is for the handler to judge.

mod policy;

use self::policy::Policies;
use crate::{
    Identity,
    identity::{ROLE_METADATA, USER_METADATA},
    mesh::{Trust, now_s},
};
use http::{HeaderMap, Request};
use stampede_identity::{Caller, IDENTITY_METADATA, Keys, Role, User};
use stampede_status::{Problem, Reason};
use std::sync::Arc;
use tonic::body::Body;

/// What every process offers to whoever can connect: its health, and its contract.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Who may call what.
#[derive(Clone, Default)]
pub(crate) enum Guard {
    /// Nobody: nothing was said.
    #[default]
    Closed,
    /// Everybody, as who they say that they are.
    Open,
    /// Those whom the contract names, as far as they are believed.
    Contract(Arc<Contracted>),
}

/// The contract, and who is believed.
pub(crate) struct Contracted {
    policies: Policies,
    trust: Trust,
}

/// Who makes a call, as far as that is believed.
pub(crate) struct Believed {
    /// Which process; unknown where everybody is believed.
    caller: Option<Caller>,
    role: Option<Role>,
    user_id: String,
}

impl Guard {
    /// Lets those in whom this contract names. Fails if it names what there is not.
    pub(crate) fn of_contract(descriptor_set: &[u8], trust: Trust) -> anyhow::Result<Guard> {
        let policies = Policies::read(descriptor_set)?;
        Ok(Guard::Contract(Arc::new(Contracted { policies, trust })))
    }

    /// Refuses the call, or tells its handler who makes it.
    pub(crate) fn admit(&self, request: &mut Request<Body>) -> Result<(), Problem> {
        let path = request.uri().path();
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Ok(());
        }
        let believed = match self {
            Guard::Closed => return Err(unauthenticated("the process was not told whom to believe")),
            Guard::Open => plain(request.headers()),
            Guard::Contract(contract) => contract.admit(path, request.headers())?,
        };
        if let Some(Believed { role: Some(role), user_id, .. }) = believed {
            request.extensions_mut().insert(Identity { user_id, role });
        }
        Ok(())
    }
}

impl Contracted {
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<Believed>, Problem> {
        let Some(policy) = self.policies.of(path) else {
            return Err(Problem::new(Reason::MethodNotAllowed, "there is no such method"));
        };
        let believed = match &self.trust {
            Trust::Signed(keys) => signed(keys, path, headers)?,
            Trust::Insecure => plain(headers),
        };
        policy.admit(believed.as_ref())?;
        Ok(believed)
    }
}

/// Who has signed the call; nobody if it has no entry. One that does not hold is refused even where nobody has to sign:
/// somebody means to be known, and is not.
fn signed(keys: &Keys, path: &str, headers: &HeaderMap) -> Result<Option<Believed>, Problem> {
    let Some(entry) = headers.get(IDENTITY_METADATA) else { return Ok(None) };
    let entry = entry.to_str().map_err(|_| unauthenticated("the signed identity cannot be read"))?;
    let claim = keys
        .verify(entry, path, now_s())
        .map_err(|refusal| unauthenticated(format!("the signed identity is not believed: {refusal}")))?;
    let user_id = match claim.user {
        User::Nobody => String::new(),
        User::One(id) => id.to_owned(),
        User::Any => text(headers, USER_METADATA).to_owned(),
    };
    Ok(Some(Believed { caller: Some(claim.caller), role: claim.role, user_id }))
}

/// Who the call says that it is from.
fn plain(headers: &HeaderMap) -> Option<Believed> {
    let role = text(headers, ROLE_METADATA).parse().ok()?;
    Some(Believed { caller: None, role: Some(role), user_id: text(headers, USER_METADATA).to_owned() })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unauthenticated(detail: impl Into<String>) -> Problem {
    Problem::new(Reason::Unauthenticated, detail)
}

#[cfg(test)]
mod tests {
    use stampede_identity::{Claim, Scope};
    use stampede_vocab::Service;

    use super::*;

    const PATH: &str = "/a.B/C";

    fn keys() -> Keys {
        Keys::parse("a secret of the tests, 32 bytes or more").unwrap()
    }

    fn request(metadata: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().uri(PATH);
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn where_nothing_is_said_everybody_is_refused() {
        let mut call = request(&[(ROLE_METADATA, "service")]);
        assert_eq!(Guard::default().admit(&mut call).unwrap_err().reason(), Reason::Unauthenticated);
        *call.uri_mut() = "/grpc.health.v1.Health/Check".parse().unwrap();
        assert!(Guard::default().admit(&mut call).is_ok());
    }

    #[test]
    fn a_method_that_the_contract_does_not_have_is_none() {
        let guard = Guard::of_contract(&[], Trust::Insecure).unwrap();
        let refused = guard.admit(&mut request(&[(ROLE_METADATA, "service")])).unwrap_err();
        assert_eq!(refused.reason(), Reason::MethodNotAllowed);
    }

    #[test]
    fn what_is_signed_is_believed_and_what_is_plain_is_not() {
        let claim = Claim { caller: Service::Order.into(), role: Some(Role::Buyer), user: User::One("usr_1") };
        let entry = keys().sign(claim, Scope::Method(PATH), now_s() + 9).unwrap();
        let all = [(IDENTITY_METADATA, entry.as_str()), (ROLE_METADATA, "operator"), (USER_METADATA, "usr_2")];
        let believed = signed(&keys(), PATH, request(&all).headers()).unwrap().unwrap();
        assert_eq!((believed.role, believed.user_id.as_str()), (Some(Role::Buyer), "usr_1"));
        assert!(signed(&keys(), PATH, request(&all[1..]).headers()).unwrap().is_none());
        assert!(signed(&keys(), "/a.B/D", request(&all).headers()).is_err());
    }

    #[test]
    fn an_entry_for_any_user_takes_the_one_that_is_named() {
        let claim = Claim { caller: Caller::Operator, role: Some(Role::Buyer), user: User::Any };
        let entry = keys().sign(claim, Scope::All, now_s() + 9).unwrap();
        let all = [(IDENTITY_METADATA, entry.as_str()), (USER_METADATA, "usr_2")];
        let believed = signed(&keys(), PATH, request(&all).headers()).unwrap().unwrap();
        assert_eq!(believed.user_id, "usr_2");
    }
}
