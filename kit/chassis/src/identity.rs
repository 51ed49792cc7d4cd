//! Who calls: metadata set by the gateway (which drops what comes from outside under these names)
//! or by another service.
//!
//! This is authentication's result, not authentication: a service trusts the network it is on.

use std::str::FromStr;

use stampede_status::{Problem, Reason};
use stampede_vocab::UserId;
use tonic::{Request, metadata::MetadataMap};

/// Metadata with the id of the user, such as `usr_...`.
pub const USER_METADATA: &str = "x-stampede-user";

/// Metadata with the role: `buyer`, `operator` or `service`.
pub const ROLE_METADATA: &str = "x-stampede-role";

/// The rights of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Buys; sees only what is their own.
    Buyer,
    /// Runs sales.
    Operator,
    /// Another service of the mesh, on nobody's behalf in particular.
    Service,
}

impl Role {
    /// The role as metadata carries it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Buyer => "buyer",
            Role::Operator => "operator",
            Role::Service => "service",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Role::Buyer, Role::Operator, Role::Service].into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// The text names no role.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownRole;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the user, unparsed; empty if a service calls on nobody's behalf.
    pub user_id: String,
    /// Rights of the caller.
    pub role: Role,
}

impl Identity {
    /// Reads who calls; `UNAUTHENTICATED` if the request does not say.
    pub fn of<T>(request: &Request<T>) -> Result<Identity, Problem> {
        let role = text(request.metadata(), ROLE_METADATA)
            .and_then(|role| role.parse::<Role>().ok())
            .ok_or_else(unauthenticated)?;
        let user_id = text(request.metadata(), USER_METADATA).unwrap_or_default();
        if user_id.is_empty() && role != Role::Service {
            return Err(unauthenticated());
        }
        Ok(Identity { user_id: user_id.to_owned(), role })
    }

    /// Returns the user who calls.
    pub fn user(&self) -> Result<UserId, Problem> {
        self.user_id.parse().map_err(|_| unauthenticated())
    }

    /// Returns the user whose things alone the caller may see; `None` for one who may see everybody's.
    pub fn owner(&self) -> Result<Option<UserId>, Problem> {
        match self.role {
            Role::Buyer => self.user().map(Some),
            Role::Operator | Role::Service => Ok(None),
        }
    }

    /// Refuses all but operators and services.
    pub fn require_operator(&self) -> Result<(), Problem> {
        match self.role {
            Role::Operator | Role::Service => Ok(()),
            Role::Buyer => Err(denied("this is for operators")),
        }
    }

    /// Refuses all but services.
    pub fn require_service(&self) -> Result<(), Problem> {
        match self.role {
            Role::Service => Ok(()),
            Role::Buyer | Role::Operator => Err(denied("this is for the services themselves")),
        }
    }
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name)?.to_str().ok()
}

fn unauthenticated() -> Problem {
    Problem::new(Reason::Unauthenticated, "the request does not say who calls")
}

fn denied(detail: &str) -> Problem {
    Problem::new(Reason::PermissionDenied, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(user: &str, role: &str) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in [(USER_METADATA, user), (ROLE_METADATA, role)] {
            if !value.is_empty() {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
        }
        request
    }

    fn reason(user: &str, role: &str) -> Option<Reason> {
        Identity::of(&request(user, role)).err().map(|problem| problem.reason())
    }

    #[test]
    fn a_caller_is_a_user_with_a_role_or_a_service() {
        let buyer = Identity::of(&request("usr_1", "buyer")).unwrap();
        assert_eq!(buyer, Identity { user_id: "usr_1".to_owned(), role: Role::Buyer });
        assert_eq!(Identity::of(&request("", "service")).unwrap().role, Role::Service);
    }

    #[test]
    fn a_request_that_does_not_say_who_calls_is_refused() {
        for (user, role) in [("", ""), ("usr_1", ""), ("", "buyer"), ("", "operator"), ("usr_1", "Operator")] {
            assert_eq!(reason(user, role), Some(Reason::Unauthenticated), "{user:?} {role:?}");
        }
    }

    #[test]
    fn a_buyer_sees_what_is_theirs_and_others_see_all() {
        let user_id = "usr_0000000000000000000000001a";
        let owner = |role| Identity { user_id: user_id.to_owned(), role }.owner().unwrap();
        assert_eq!(owner(Role::Buyer).map(|user| user.to_string()).as_deref(), Some(user_id));
        assert_eq!((owner(Role::Operator), owner(Role::Service)), (None, None));
        let unreadable = Identity { user_id: "usr_1".to_owned(), role: Role::Buyer };
        assert_eq!(unreadable.user().unwrap_err().reason(), Reason::Unauthenticated);
    }

    #[test]
    fn roles_open_what_they_are_for() {
        let table = [(Role::Buyer, false, false), (Role::Operator, true, false), (Role::Service, true, true)];
        for (role, operator, service) in table {
            let identity = Identity { user_id: "usr_1".to_owned(), role };
            assert_eq!(identity.require_operator().is_ok(), operator, "{role:?}");
            assert_eq!(identity.require_service().is_ok(), service, "{role:?}");
        }
    }
}
