//! Authorizes calls before their handlers run, by their signature and the access rules of the contract. A method
//! without a rule is refused to everybody.
//!
//! The handler gets the caller as an [`Identity`], and checks ownership itself.

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

/// Services that need no authorization: health and reflection.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Authorization of calls.
#[derive(Clone, Default)]
pub(crate) enum Guard {
    /// Refuses all calls: no contract was set.
    #[default]
    Closed,
    /// Admits all calls, with the identity in their plain metadata.
    Open,
    /// Admits calls by the access rules of the contract.
    Contract(Arc<Contracted>),
}

/// The access rules, and the trust in callers.
pub(crate) struct Contracted {
    policies: Policies,
    trust: Trust,
}

/// The authenticated caller of a request.
pub(crate) struct Believed {
    /// The calling process; unknown if callers do not sign.
    caller: Option<Caller>,
    role: Option<Role>,
    user_id: String,
}

impl Guard {
    /// Reads the access rules of the contract. Fails if they name an unknown role or caller.
    pub(crate) fn of_contract(descriptor_set: &[u8], trust: Trust) -> anyhow::Result<Guard> {
        let policies = Policies::read(descriptor_set)?;
        Ok(Guard::Contract(Arc::new(Contracted { policies, trust })))
    }

    /// Refuses the call, or adds its identity to the request.
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

/// Verifies the signed entry of a call; `None` if it has none. An invalid entry is refused for every method: its sender
/// meant to authenticate.
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

/// Reads the identity from plain metadata.
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
    use super::*;
    use stampede_identity::{Claim, Scope};
    use stampede_vocab::Service;

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
