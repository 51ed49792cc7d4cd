//! Access rules of methods, read from the descriptors of the contract: `stampede.type.v1.access` names the roles that
//! may call a method through the gateway, `stampede.type.v1.callers` the processes that may call it on their own
//! behalf. A method without either is refused.

use super::Believed;
use anyhow::{Context, bail};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor, Value};
use stampede_identity::{Caller, Role};
use stampede_status::{Problem, Reason};
use stampede_vocab::Process;
use std::collections::HashMap;

const ACCESS: &str = "stampede.type.v1.access";
const CALLERS: &str = "stampede.type.v1.callers";

/// The access rules of a contract, by method path.
pub(super) struct Policies(HashMap<String, Policy>);

/// The access rule of one method.
pub(super) struct Policy {
    access: Access,
    callers: Vec<Caller>,
}

/// Access through the gateway. An operator who signs has it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Nobody,
    Anybody,
    /// Any authenticated user: ownership is checked by the handler.
    Known,
    Operator,
}

impl Policies {
    /// Fails if the contract names an unknown access or caller.
    pub(super) fn read(descriptor_set: &[u8]) -> anyhow::Result<Policies> {
        let pool = DescriptorPool::decode(descriptor_set).context("the contract cannot be read")?;
        let options = [ACCESS, CALLERS].map(|name| pool.get_extension_by_name(name));
        let mut policies = HashMap::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let policy = Policy::read(&method, &options).with_context(|| path.clone())?;
            policies.insert(path, policy);
        }
        Ok(Policies(policies))
    }

    /// Returns the rule of the method with this path; `None` if there is no such method.
    pub(super) fn of(&self, path: &str) -> Option<&Policy> {
        self.0.get(path)
    }
}

impl Policy {
    fn read(method: &MethodDescriptor, [access, callers]: &[Option<ExtensionDescriptor>; 2]) -> anyhow::Result<Policy> {
        let options = method.options();
        let access = match access.as_ref().and_then(|option| options.get_extension(option).as_enum_number()) {
            None | Some(0) => Access::Nobody,
            Some(1) => Access::Anybody,
            Some(2) => Access::Known,
            Some(3) => Access::Operator,
            Some(other) => bail!("there is no access {other}"),
        };
        let named = callers.as_ref().map(|option| options.get_extension(option).into_owned());
        let named = named.as_ref().and_then(|list| list.as_list()).unwrap_or_default();
        Ok(Policy { access, callers: named.iter().map(caller).collect::<anyhow::Result<_>>()? })
    }

    /// Refuses a caller that the rule does not name.
    pub(super) fn admit(&self, by: Option<&Believed>) -> Result<(), Problem> {
        if self.access == Access::Anybody || by.is_some_and(|by| self.is_named(by)) {
            return Ok(());
        }
        let Some(Believed { caller, role: Some(role), .. }) = by else {
            return Err(Problem::new(Reason::Unauthenticated, "the request does not say who calls, in a signed entry"));
        };
        let is_from_outside = matches!(caller, None | Some(Caller::Operator | Caller::Process(Process::Gateway)));
        match (self.access, role) {
            (Access::Known, Role::Buyer | Role::Operator) | (Access::Operator, Role::Operator) if is_from_outside => {
                Ok(())
            }
            (Access::Operator, _) => Err(denied("this is for operators")),
            (Access::Nobody, _) if self.callers.is_empty() => Err(denied("this is for nobody")),
            _ => Err(denied("this is for other callers")),
        }
    }

    /// Returns whether the rule names the caller, which acts on its own behalf.
    fn is_named(&self, by: &Believed) -> bool {
        match (by.caller, by.role) {
            (Some(Caller::Operator), Some(Role::Operator)) => self.callers.contains(&Caller::Operator),
            (Some(caller @ Caller::Process(_)), Some(Role::Service)) => self.callers.contains(&caller),
            // Without signatures the calling process is unknown.
            (None, Some(Role::Service)) => self.callers.iter().any(|one| *one != Caller::Operator),
            (None, Some(Role::Operator)) => self.callers.contains(&Caller::Operator),
            _ => false,
        }
    }
}

fn caller(name: &Value) -> anyhow::Result<Caller> {
    Ok(name.as_str().context("a caller is a name")?.parse()?)
}

fn denied(detail: &str) -> Problem {
    Problem::new(Reason::PermissionDenied, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Service;

    fn by(caller: impl Into<Caller>, role: Role) -> Believed {
        Believed { caller: Some(caller.into()), role: Some(role), user_id: "usr_1".to_owned() }
    }

    fn reason(policy: &Policy, by: Option<&Believed>) -> Option<Reason> {
        policy.admit(by).err().map(|problem| problem.reason())
    }

    #[test]
    fn who_is_not_named_is_refused() {
        let denied = Some(Reason::PermissionDenied);
        let order = Policy { access: Access::Nobody, callers: vec![Service::Order.into()] };
        assert_eq!(reason(&order, Some(&by(Service::Order, Role::Service))), None);
        assert_eq!(reason(&order, Some(&by(Service::Payment, Role::Service))), denied);
        assert_eq!(reason(&order, Some(&by(Service::Order, Role::Operator))), denied, "it does not speak for itself");
        assert_eq!(reason(&order, Some(&by(Caller::Operator, Role::Operator))), denied);
        assert_eq!(reason(&order, Some(&by(Process::Gateway, Role::Service))), denied);
        assert_eq!(reason(&order, None), Some(Reason::Unauthenticated));
        let operator = Policy { access: Access::Nobody, callers: vec![Caller::Operator] };
        assert_eq!(reason(&operator, Some(&by(Caller::Operator, Role::Operator))), None);
        assert_eq!(reason(&operator, Some(&by(Caller::Operator, Role::Buyer))), denied);
        assert_eq!(reason(&operator, Some(&by(Process::Gateway, Role::Operator))), denied);
    }

    #[test]
    fn a_method_of_which_nothing_is_said_is_for_nobody() {
        let silent = Policy { access: Access::Nobody, callers: Vec::new() };
        for role in [Role::Buyer, Role::Operator, Role::Service] {
            for caller in Process::all().map(Caller::Process).chain([Caller::Operator]) {
                assert_eq!(reason(&silent, Some(&by(caller, role))), Some(Reason::PermissionDenied));
            }
        }
    }

    #[test]
    fn what_is_for_the_outside_comes_through_the_gateway_or_from_an_operator() {
        let denied = Some(Reason::PermissionDenied);
        let of = |access| Policy { access, callers: Vec::new() };
        for caller in [Caller::Operator, Process::Gateway.into()] {
            assert_eq!(reason(&of(Access::Known), Some(&by(caller, Role::Buyer))), None);
            assert_eq!(reason(&of(Access::Operator), Some(&by(caller, Role::Operator))), None);
            assert_eq!(reason(&of(Access::Operator), Some(&by(caller, Role::Buyer))), denied);
        }
        assert_eq!(reason(&of(Access::Known), Some(&by(Service::Coupon, Role::Buyer))), denied);
        assert_eq!(reason(&of(Access::Operator), Some(&by(Service::Coupon, Role::Service))), denied);
        let anonymous = Believed { role: None, ..by(Process::Gateway, Role::Buyer) };
        assert_eq!(reason(&of(Access::Known), Some(&anonymous)), Some(Reason::Unauthenticated));
        assert_eq!(reason(&of(Access::Anybody), Some(&anonymous)), None);
        assert_eq!(reason(&of(Access::Anybody), None), None);
    }
}
