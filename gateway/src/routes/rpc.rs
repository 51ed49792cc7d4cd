//! One way to call one method: where each part of the request goes, and what of the response comes back.

use super::{annotation::RouteError, field_path::FieldPath, field_path::named, template::Template};
use http::uri::PathAndQuery;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

/// A method of the contract as one `google.api.http` rule binds it.
#[derive(Debug)]
pub struct Rpc {
    /// Path of the call, such as `/stampede.order.v1.OrderService/PlaceOrder`.
    pub grpc_path: PathAndQuery,
    /// Full name of its service.
    pub service: String,
    /// What it takes.
    pub input: MessageDescriptor,
    /// What it answers.
    pub output: MessageDescriptor,
    /// What the HTTP body is read into.
    pub body: BodyRule,
    /// The only field of the answer that is sent; `None` for all of it.
    pub response_body: Option<FieldDescriptor>,
    /// Whether it answers many times.
    pub streaming: bool,
    /// What is read from the path.
    pub variables: Vec<PathVariable>,
}

/// What the HTTP body is read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyRule {
    /// Nothing: everything is in the path and in query parameters.
    None,
    /// The whole request; there are no query parameters.
    Whole,
    /// One message field; the others are query parameters.
    Field(FieldDescriptor),
}

/// A request field that is read from the path.
#[derive(Debug)]
pub struct PathVariable {
    /// The field.
    pub field: FieldPath,
    first: usize,
    count: Option<usize>,
}

impl PathVariable {
    /// The segments that it covers, as they are in the path (which starts with a slash and has no verb).
    pub fn text<'p>(&self, path: &'p str) -> &'p str {
        // The segment before the first slash is empty, so segment n starts behind slash n.
        let start = nth_slash(path, self.first).map_or(path.len(), |slash| slash + 1);
        let below = &path[start..];
        let end = self.count.and_then(|count| nth_slash(below, count - 1)).unwrap_or(below.len());
        &below[..end]
    }
}

fn nth_slash(path: &str, n: usize) -> Option<usize> {
    path.match_indices('/').nth(n).map(|(at, _)| at)
}

impl Rpc {
    /// Binds `method` by the template, `body` and `response_body` of one rule. Refuses names that are not there, so
    /// that a mistake in an annotation shows when the gateway starts.
    pub fn bind(
        method: &MethodDescriptor,
        template: &Template,
        body: &str,
        response_body: &str,
    ) -> Result<Self, RouteError> {
        let fault = |problem: String| RouteError::Binding { method: method.full_name().to_owned(), problem };
        if method.is_client_streaming() {
            return Err(fault("a stream of requests cannot come over HTTP/JSON".into()));
        }
        let (input, output) = (method.input(), method.output());
        let service = method.parent_service().full_name().to_owned();
        let grpc_path = PathAndQuery::try_from(format!("/{service}/{}", method.name()))
            .map_err(|error| fault(error.to_string()))?;
        let response_body = match response_body {
            "" => None,
            name => Some(message_field(&output, name).map_err(fault)?),
        };
        Ok(Self {
            grpc_path,
            service,
            body: body_rule(&input, body).map_err(fault)?,
            response_body,
            streaming: method.is_server_streaming(),
            variables: path_variables(&input, template).map_err(fault)?,
            input,
            output,
        })
    }
}

fn body_rule(input: &MessageDescriptor, body: &str) -> Result<BodyRule, String> {
    match body {
        "" => Ok(BodyRule::None),
        "*" => Ok(BodyRule::Whole),
        name => message_field(input, name).map(BodyRule::Field),
    }
}

fn message_field(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, String> {
    let field = named(message, name).ok_or_else(|| format!("{} has no field {name}", message.full_name()))?;
    match field.kind() {
        Kind::Message(_) if !field.is_list() && !field.is_map() => Ok(field),
        _ => Err(format!("{} is not a single message", field.full_name())),
    }
}

fn path_variables(input: &MessageDescriptor, template: &Template) -> Result<Vec<PathVariable>, String> {
    let resolve = |name: &str| {
        FieldPath::resolve(input, name).ok_or_else(|| format!("{} has no field {name}", input.full_name()))
    };
    template
        .variables
        .iter()
        .map(|variable| {
            Ok(PathVariable { field: resolve(&variable.field)?, first: variable.first, count: variable.count })
        })
        .collect()
}
