//! Which request is for whom: the route table, read from the annotations of the contract.
//!
//! Nothing here reads a body or calls anybody. A method without `google.api.http`, or without
//! `stampede.type.v1.access`, has no route and so cannot be reached from outside.

mod annotation;
mod field_path;
mod rpc;
mod table;
mod template;
mod trie;

pub use self::{
    field_path::{FieldPath, named},
    rpc::{BodyRule, Rpc},
    table::{Access, Endpoint, Lookup, Native, Route, Table},
    template::split_verb,
};
