//! The rights of a caller.

use std::str::FromStr;

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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role")]
pub struct UnknownRole;
