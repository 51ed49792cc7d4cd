//! Reads `google.api.http` and `stampede.type.v1.access` of every method in a descriptor set, and
//! `stampede.type.v1.header` of the fields that they take.

use super::{
    Access, RouteError,
    rpc::{Rpc, Rule},
    template,
};
use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor};
use stampede_proto::r#type::v1 as proto;

/// The rule of one method.
pub struct Binding {
    pub method: Method,
    /// The template as written.
    pub text: String,
    /// The callers that it is open to.
    pub access: Access,
    pub rpc: Rpc,
}

/// Returns the binding of every method in the set that has a route.
pub fn bindings(pool: &DescriptorPool) -> Result<Vec<Binding>, RouteError> {
    let options = Options::of(pool)?;
    let mut bindings = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let Some(access) = options.access(&method) else { continue };
        if let Some(rule) = options.rule(&method) {
            bindings.push(bind(&method, access, &rule, &options.header)?);
        }
    }
    Ok(bindings)
}

struct Options {
    http: ExtensionDescriptor,
    access: ExtensionDescriptor,
    header: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Result<Self, RouteError> {
        let option = |name| pool.get_extension_by_name(name).ok_or(RouteError::NoOption(name));
        Ok(Self {
            http: option("google.api.http")?,
            access: option("stampede.type.v1.access")?,
            header: option("stampede.type.v1.header")?,
        })
    }

    fn access(&self, method: &MethodDescriptor) -> Option<Access> {
        let options = method.options();
        let number = options.get_extension(&self.access).as_enum_number()?;
        match proto::Access::try_from(number).ok()? {
            proto::Access::Unspecified => None,
            proto::Access::Public => Some(Access::Public),
            proto::Access::Authenticated => Some(Access::Authenticated),
            proto::Access::Operator => Some(Access::Operator),
        }
    }

    /// Returns the rule of the method; `None` without an annotation.
    fn rule(&self, method: &MethodDescriptor) -> Option<DynamicMessage> {
        let options = method.options();
        let has = options.has_extension(&self.http);
        has.then(|| options.get_extension(&self.http).as_message().cloned()).flatten()
    }
}

fn bind(
    method: &MethodDescriptor,
    access: Access,
    rule: &DynamicMessage,
    header: &ExtensionDescriptor,
) -> Result<Binding, RouteError> {
    let fault = |problem: &str| RouteError::Binding { method: method.full_name().to_owned(), problem: problem.into() };
    let (http_method, text) = pattern(rule).ok_or_else(|| fault("its google.api.http is neither get nor post"))?;
    if rule
        .get_field_by_name("additional_bindings")
        .is_some_and(|more| more.as_list().is_some_and(|more| !more.is_empty()))
    {
        return Err(fault("it has additional bindings: give each method one path"));
    }
    let (body, response_body) = (text_of(rule, "body"), text_of(rule, "response_body"));
    let read_only = http_method == Method::GET;
    let bound = Rule { read_only, variable: template::variable(&text)?, body: &body, response_body: &response_body };
    let rpc = Rpc::bind(method, bound, header)?;
    Ok(Binding { method: http_method, text, access, rpc })
}

fn pattern(rule: &DynamicMessage) -> Option<(Method, String)> {
    [Method::GET, Method::POST].into_iter().find_map(|method| {
        let template = text_of(rule, &method.as_str().to_ascii_lowercase());
        (!template.is_empty()).then_some((method, template))
    })
}

fn text_of(rule: &DynamicMessage, field: &str) -> String {
    rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
