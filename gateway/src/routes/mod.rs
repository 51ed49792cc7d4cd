//! The route table, read from the annotations of the contract.
//!
//! Nothing here reads a body or calls a service. A method without `google.api.http`, or without
//! `stampede.type.v1.access`, has no route and so cannot be reached from outside.

mod annotation;
mod field_path;
mod rpc;
mod table;
mod template;

use self::template::TemplateError;
pub use self::{
    field_path::{FieldPath, named},
    rpc::{Rpc, TICKET},
    table::{Endpoint, Lookup, Native, Page, Route, Table},
};

/// The callers that a route is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Public,
    /// Anybody with a valid token, of whatever role.
    Authenticated,
    /// Only a token of role operator.
    Operator,
}

/// A contract that no route table can be made of. The gateway does not start with one.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The descriptor set cannot be read.
    #[error("descriptor set: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// The descriptor set lacks an option that the routes are read from.
    #[error("descriptor set: the option {0} is not in it")]
    NoOption(&'static str),
    /// A path template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// An annotation does not fit its method.
    #[error("{method}: {problem}")]
    Binding {
        /// Full name of the method.
        method: String,
        problem: String,
    },
    /// Two routes are ambiguous.
    #[error("{route} is routed twice")]
    Duplicate {
        /// Method and template of the second.
        route: String,
    },
    /// Two templates are ambiguous.
    #[error("path template \"{template}\": {error}")]
    Conflict {
        /// The second.
        template: String,
        /// The conflict with an earlier one.
        error: matchit::InsertError,
    },
}
