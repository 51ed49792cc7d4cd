//! Reads `google.api.http` and `stampede.type.v1.access` of every method in a descriptor set.

use super::{
    rpc::Rpc,
    table::Access,
    template::{Template, TemplateError},
};
use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, Value};
use stampede_proto::r#type::v1 as proto;

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
        /// What does not fit.
        problem: String,
    },
    /// Two routes cannot be told apart.
    #[error("{route} is routed twice")]
    Duplicate {
        /// Method and template of the second.
        route: String,
    },
}

/// One rule of one method.
pub struct Binding {
    /// HTTP method.
    pub method: Method,
    /// The template as written.
    pub text: String,
    /// Who may call it.
    pub access: Access,
    /// How it is called.
    pub rpc: Rpc,
}

/// Every binding in the set, additional ones too, of the methods that somebody outside may call.
pub fn bindings(pool: &DescriptorPool) -> Result<Vec<Binding>, RouteError> {
    let options = Options::of(pool)?;
    let mut bindings = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let Some(access) = options.access(&method) else { continue };
        for rule in options.rules(&method) {
            bindings.push(bind(&method, access, &rule)?);
        }
    }
    Ok(bindings)
}

struct Options {
    http: ExtensionDescriptor,
    access: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Result<Self, RouteError> {
        let option = |name| pool.get_extension_by_name(name).ok_or(RouteError::NoOption(name));
        Ok(Self { http: option("google.api.http")?, access: option("stampede.type.v1.access")? })
    }

    fn access(&self, method: &MethodDescriptor) -> Option<Access> {
        let options = method.options();
        let number = options.get_extension(&self.access).as_enum_number()?;
        match proto::Access::try_from(number).ok()? {
            proto::Access::Unspecified => None,
            proto::Access::Public => Some(Access::Public),
            proto::Access::Buyer => Some(Access::Buyer),
            proto::Access::Operator => Some(Access::Operator),
        }
    }

    /// The rule of the method and its additional bindings; none without an annotation.
    fn rules(&self, method: &MethodDescriptor) -> Vec<DynamicMessage> {
        let options = method.options();
        if !options.has_extension(&self.http) {
            return Vec::new();
        }
        let Some(rule) = options.get_extension(&self.http).as_message().cloned() else { return Vec::new() };
        let additional = rule.get_field_by_name("additional_bindings");
        let additional = additional.as_deref().and_then(Value::as_list).unwrap_or_default();
        let additional: Vec<_> = additional.iter().filter_map(Value::as_message).cloned().collect();
        [rule].into_iter().chain(additional).collect()
    }
}

fn bind(method: &MethodDescriptor, access: Access, rule: &DynamicMessage) -> Result<Binding, RouteError> {
    let (http_method, text) = pattern(rule).ok_or_else(|| RouteError::Binding {
        method: method.full_name().to_owned(),
        problem: "its google.api.http names none of get, put, post, delete, patch".into(),
    })?;
    let template = Template::parse(&text)?;
    let rpc = Rpc::bind(method, &template, &text_of(rule, "body"), &text_of(rule, "response_body"))?;
    Ok(Binding { method: http_method, text, access, rpc })
}

fn pattern(rule: &DynamicMessage) -> Option<(Method, String)> {
    let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];
    methods.into_iter().find_map(|method| {
        let template = text_of(rule, &method.as_str().to_ascii_lowercase());
        (!template.is_empty()).then_some((method, template))
    })
}

fn text_of(rule: &DynamicMessage, field: &str) -> String {
    rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
