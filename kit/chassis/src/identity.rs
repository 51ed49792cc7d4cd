//! Identity of the caller, as handlers get it from an authorized call: the user and the role that a trusted process
//! signed.
//!
//! A process that calls another sets the plain metadata, which its [`MeshChannel`](crate::MeshChannel) replaces by a
//! signed entry.

use stampede_status::{Problem, Reason};
use stampede_vocab::UserId;
use tonic::Request;

pub use stampede_identity::{Role, UnknownRole};

/// Metadata with the id of the user, such as `usr_...`. It is trusted only in an insecure mesh.
pub const USER_METADATA: &str = "x-stampede-user";

/// Metadata with the role: `buyer`, `operator` or `service`. It is trusted only in an insecure mesh.
pub const ROLE_METADATA: &str = "x-stampede-role";

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the user, unparsed; empty if a service acts on its own behalf.
    pub user_id: String,
    /// Rights of the caller.
    pub role: Role,
}

impl Identity {
    /// Returns the identity of the caller. Fails with `UNAUTHENTICATED` without one.
    pub fn of<T>(request: &Request<T>) -> Result<Identity, Problem> {
        let identity = request.extensions().get::<Identity>().ok_or_else(unauthenticated)?;
        if identity.user_id.is_empty() && identity.role != Role::Service {
            return Err(unauthenticated());
        }
        Ok(identity.clone())
    }

    /// Returns the user. Fails if the caller is none.
    pub fn user(&self) -> Result<UserId, Problem> {
        self.user_id.parse().map_err(|_| unauthenticated())
    }

    /// Returns the user whose resources the caller is limited to; `None` if it may see all.
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

fn unauthenticated() -> Problem {
    Problem::new(Reason::Unauthenticated, "the request does not say who calls")
}

fn denied(detail: &str) -> Problem {
    Problem::new(Reason::PermissionDenied, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user_id: &str, role: Role) -> Result<Identity, Problem> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Identity { user_id: user_id.to_owned(), role });
        Identity::of(&request)
    }

    #[test]
    fn a_caller_is_a_user_with_a_role_or_a_service() {
        let buyer = Identity { user_id: "usr_1".to_owned(), role: Role::Buyer };
        assert_eq!(of("usr_1", Role::Buyer).unwrap(), buyer);
        assert_eq!(of("", Role::Service).unwrap().role, Role::Service);
    }

    #[test]
    fn a_request_that_does_not_say_who_calls_is_refused() {
        let mut plain = Request::new(());
        plain.metadata_mut().insert(ROLE_METADATA, "service".parse().unwrap());
        for refused in [Identity::of(&plain), of("", Role::Buyer), of("", Role::Operator)] {
            assert_eq!(refused.unwrap_err().reason(), Reason::Unauthenticated);
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
