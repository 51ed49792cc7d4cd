//! The rights of a caller.

use std::str::FromStr;

/// The rights of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A buyer; sees only their own resources.
    Buyer,
    /// Runs sales.
    Operator,
    /// Another service of the mesh, on its own behalf.
    Service,
}

impl Role {
    /// Returns the name in metadata.
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

/// A name of no role.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role")]
pub struct UnknownRole;
