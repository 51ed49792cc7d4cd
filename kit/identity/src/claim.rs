//! The claim of an entry, and its text: `1.<caller>.<role>.<user>.<until>.<scope>`, before the signature.

use crate::{Caller, Role};
use std::fmt::Write;

/// Version of the text, the first part of an entry. A new format needs a new number, so that no signature is valid for
/// both.
const VERSION: &str = "1";
/// Stands for no role: a caller without a token, who has no rights.
const ANONYMOUS: &str = "anonymous";
/// Stands for the user in other metadata.
const ANY: &str = "*";
const ONE_METHOD: &str = "method";
const ALL_METHODS: &str = "all";
/// Capacity for an entry with its signature: most have some 130 bytes.
const CAPACITY: usize = 160;

/// The user and role of a call, and its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The caller, which has signed.
    pub caller: Caller,
    /// Rights; `None` for a caller without a token.
    pub role: Option<Role>,
    /// The user.
    pub user: User<'a>,
}

/// The user of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User<'a> {
    /// No user: a service acts on its own behalf.
    Nobody,
    /// Id of the user, unparsed. [`Keys::sign`](crate::Keys::sign) refuses one that is empty, is `*`, or has a dot.
    One(&'a str),
    /// The user that `x-stampede-user` names: for load tests, which cannot sign for each user.
    Any,
}

/// Methods that an entry is valid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The method with this path, such as `/stampede.order.v1.OrderService/GetOrder`.
    Method(&'a str),
    /// All methods that the caller may call.
    All,
}

impl<'a> User<'a> {
    fn parse(text: &'a str) -> Self {
        match text {
            "" => Self::Nobody,
            ANY => Self::Any,
            id => Self::One(id),
        }
    }

    const fn as_str(self) -> &'a str {
        match self {
            Self::Nobody => "",
            Self::One(id) => id,
            Self::Any => ANY,
        }
    }

    /// Returns whether the text of the user parses back to the same user.
    pub(crate) fn is_read_as_written(self) -> bool {
        let text = self.as_str();
        Self::parse(text) == self && !text.contains('.')
    }
}

/// An entry without its signature.
pub(crate) struct Unsigned<'a> {
    pub claim: Claim<'a>,
    /// Seconds since the epoch.
    pub until_s: i64,
    /// Whether it is valid for all methods.
    pub all_methods: bool,
}

impl<'a> Unsigned<'a> {
    pub(crate) fn text(&self) -> String {
        let Self { claim: Claim { caller, role, user }, until_s, all_methods } = self;
        let role = role.map_or(ANONYMOUS, Role::as_str);
        let scope = if *all_methods { ALL_METHODS } else { ONE_METHOD };
        let mut text = String::with_capacity(CAPACITY);
        write!(text, "{VERSION}.{caller}.{role}.{}.{until_s}.{scope}", user.as_str()).expect("a string takes any text");
        text
    }

    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = || parts.next();
        if next()? != VERSION {
            return None;
        }
        let caller = next()?.parse().ok()?;
        let role = match next()? {
            ANONYMOUS => None,
            role => Some(role.parse().ok()?),
        };
        let user = User::parse(next()?);
        let until_s = next()?.parse().ok()?;
        let all_methods = match next()? {
            ONE_METHOD => false,
            ALL_METHODS => true,
            _ => return None,
        };
        next().is_none().then_some(Self { claim: Claim { caller, role, user }, until_s, all_methods })
    }
}
