//! One way to call one method: where each part of the request goes, and what of the response comes back.

use super::{RouteError, field_path::FieldPath, field_path::named, template::Variable};
use crate::transcode::Writer;
use http::{HeaderName, uri::PathAndQuery};
use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use std::sync::Arc;

/// The query parameter of streams that stands for their caller, for callers that cannot send a header.
pub const TICKET: &str = "ticket";

/// A method of the contract as one `google.api.http` rule binds it.
#[derive(Debug)]
pub struct Rpc {
    /// Path of the call, such as `/stampede.order.v1.OrderService/PlaceOrder`.
    pub grpc_path: PathAndQuery,
    /// The same as text: the name of the call in metrics, where each one counts and none makes a copy.
    pub label: Arc<str>,
    /// Full name of its service.
    pub service: String,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// Writes the answers that are as services send them.
    pub writer: Writer,
    /// Whether it has no effect: its route is a `get`.
    pub read_only: bool,
    /// Whether the request is in the HTTP body; else all that is not in the path is in query parameters.
    pub has_body: bool,
    /// The text that the body is, byte for byte, where it is not the whole request as JSON.
    pub raw_body: Option<FieldDescriptor>,
    /// The texts that are read from headers.
    pub headers: Vec<(HeaderName, FieldDescriptor)>,
    /// The only field of the answer that is sent; `None` for all of it.
    pub response_body: Option<FieldDescriptor>,
    /// Whether it is a stream of answers.
    pub streaming: bool,
    /// The field of the request that makes a repeat known, if it has one; the header `Idempotency-Key` stands for it.
    pub request_id: Option<FieldDescriptor>,
    pub variable: Option<PathVariable>,
}

/// The parts of a `google.api.http` rule beside method and path.
pub struct Rule<'r> {
    /// Whether it is a `get`.
    pub read_only: bool,
    pub variable: Option<Variable<'r>>,
    /// `*` for the whole request as JSON, or the field that is the raw body; empty if there is none.
    pub body: &'r str,
    /// The field of the answer that is sent; empty for all of it.
    pub response_body: &'r str,
}

/// A request field that is read from the path.
#[derive(Debug)]
pub struct PathVariable {
    pub field: FieldPath,
    segment: usize,
}

impl PathVariable {
    /// Returns its text in the path of a request that was routed here.
    pub fn text<'p>(&self, path: &'p str) -> &'p str {
        // The segment before the first slash is empty. What follows a colon is the verb.
        let segment = path.split('/').nth(self.segment + 1).unwrap_or_default();
        segment.split_once(':').map_or(segment, |(text, _)| text)
    }
}

impl Rpc {
    /// Binds `method` by its rule, and its fields by the option `header`. Refuses names that are not there, so that a
    /// mistake in an annotation shows when the gateway starts.
    pub fn bind(method: &MethodDescriptor, rule: Rule<'_>, header: &ExtensionDescriptor) -> Result<Self, RouteError> {
        let Rule { read_only, variable, body, response_body } = rule;
        let fault = |problem: String| RouteError::Binding { method: method.full_name().to_owned(), problem };
        if method.is_client_streaming() {
            return Err(fault("a stream of requests cannot come over HTTP/JSON".into()));
        }
        let (input, output) = (method.input(), method.output());
        if method.is_server_streaming() && named(&input, TICKET).is_some() {
            return Err(fault(format!("its field {TICKET} is the parameter by which callers of streams are known")));
        }
        let service = method.parent_service().full_name().to_owned();
        let grpc_path = PathAndQuery::try_from(format!("/{service}/{}", method.name()))
            .map_err(|error| fault(error.to_string()))?;
        let response_body = match response_body {
            "" => None,
            name => Some(message_field(&output, name).map_err(fault)?),
        };
        let raw_body = match body {
            "" | "*" => None,
            name => Some(text_field(&input, name).map_err(fault)?),
        };
        Ok(Self {
            writer: Writer::of(&output, response_body.as_ref()),
            label: grpc_path.as_str().into(),
            grpc_path,
            service,
            read_only,
            has_body: !body.is_empty(),
            headers: header_fields(&input, header).map_err(fault)?,
            response_body,
            streaming: method.is_server_streaming(),
            request_id: request_id(&input).filter(|_| body == "*"),
            variable: variable.map(|variable| path_variable(&input, variable)).transpose().map_err(fault)?,
            raw_body,
            input,
            output,
        })
    }

    /// Returns whether this field of the request is read from the path.
    pub fn has_in_path(&self, field: &FieldDescriptor) -> bool {
        let path = self.variable.as_ref().map(|variable| &variable.field);
        path.is_some_and(|path| path.through().is_empty() && path.last() == field)
    }
}

fn message_field(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, String> {
    let field = named(message, name).ok_or_else(|| format!("{} has no field {name}", message.full_name()))?;
    match field.kind() {
        Kind::Message(_) if !field.is_list() && !field.is_map() => Ok(field),
        _ => Err(format!("{} is not a single message", field.full_name())),
    }
}

fn text_field(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, String> {
    let field = named(message, name).ok_or_else(|| format!("{} has no field {name}", message.full_name()))?;
    if is_text(&field) { Ok(field) } else { Err(format!("{} is not a single text", field.full_name())) }
}

fn is_text(field: &FieldDescriptor) -> bool {
    field.kind() == Kind::String && !field.is_list()
}

/// Returns the fields of a request that name a header.
fn header_fields(
    input: &MessageDescriptor,
    header: &ExtensionDescriptor,
) -> Result<Vec<(HeaderName, FieldDescriptor)>, String> {
    let mut found = Vec::new();
    for field in input.fields() {
        let options = field.options();
        if !options.has_extension(header) {
            continue;
        }
        let name = options.get_extension(header).as_str().unwrap_or_default().to_owned();
        let name = HeaderName::try_from(name).map_err(|_| format!("{} names no header", field.full_name()))?;
        if !is_text(&field) {
            return Err(format!("{} cannot stand in a header: it is not a single text", field.full_name()));
        }
        found.push((name, field));
    }
    Ok(found)
}

fn request_id(input: &MessageDescriptor) -> Option<FieldDescriptor> {
    let field = input.get_field_by_name("request_id")?;
    is_text(&field).then_some(field)
}

fn path_variable(input: &MessageDescriptor, variable: Variable<'_>) -> Result<PathVariable, String> {
    let Variable { field, segment } = variable;
    let found = FieldPath::resolve(input, field);
    let field = found.ok_or_else(|| format!("{} has no field {field}", input.full_name()))?;
    let last = field.last();
    if last.is_list() || last.is_map() || matches!(last.kind(), Kind::Message(_)) {
        return Err(format!("{} cannot stand in a path: it is not a single value", last.full_name()));
    }
    Ok(PathVariable { field, segment })
}
