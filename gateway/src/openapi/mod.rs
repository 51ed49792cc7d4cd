//! The OpenAPI description of the gateway's API, and the page that shows it.
//!
//! Generated from the route table, the descriptors and their comments, so it cannot contradict the routes; only the
//! gateway's own endpoints are described by hand. `docs/openapi.json` is a copy for readers without a gateway. Nothing
//! here knows how a request is answered.

mod comments;
mod constraints;
mod examples;
mod native;
mod operations;
mod pages;
mod parameters;
mod reasons;
mod responses;
mod schemas;
#[cfg(test)]
mod tests;

pub use self::pages::Pages;

use self::{examples::Example, schemas::Schemas};
use crate::routes::{Endpoint, Route, Rpc, Table};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Introduction of the description.
const ABOUT: &str = "A flash sale over HTTP: claim coupons, order limited stock the moment an event opens, pay, and \
    get the goods. Fields have the names of the contract (lowerCamelCase is read too), 64-bit numbers are strings, \
    times are RFC 3339, and money is in minor units. Whatever fails, fails as problem+json with a stable `reason`. A \
    request that has a `request_id` can be sent again without a second effect.";

/// Writes the description of all routes of a table.
pub fn document(table: &Table) -> Value {
    let examples = examples::all();
    let pool = pool_of(table);
    let bodies = rpcs(table).filter(|(_, rpc)| rpc.has_body && rpc.raw_body.is_none()).map(|(_, rpc)| &rpc.input);
    let mut schemas = Schemas::new(&pool, bodies);
    native::add_schemas(&mut schemas);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut tags: Vec<Value> = Vec::new();
    for route in table.routes() {
        let Some(mut operation) = operation(route, &pool, &examples, &mut schemas, &mut tags) else { continue };
        operation["x-access"] = json!(native::caller(route.access));
        let method = route.method.as_str().to_ascii_lowercase();
        paths.entry(&*route.template).or_default().insert(method, operation);
    }
    tags.extend(native::TAGS.map(|(name, description)| json!({"name": name, "description": description})));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stampede",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        // The server that this was fetched from.
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.into_map(),
            "parameters": parameters::shared(),
            "headers": responses::headers(),
            "securitySchemes": native::security_schemes(),
        },
    })
}

/// Returns the description of the contract as a text for people and version control.
pub fn text(table: &Table) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(&document(table))? + "\n")
}

fn operation(
    route: &Route,
    pool: &DescriptorPool,
    examples: &BTreeMap<String, Example>,
    schemas: &mut Schemas,
    tags: &mut Vec<Value>,
) -> Option<Value> {
    let example = |id: &str| examples.get(id).cloned().unwrap_or_default();
    match &route.endpoint {
        Endpoint::Native(native) => Some(native::of(route, *native, example)),
        Endpoint::Rpc(rpc) => {
            let method = method_of(pool, rpc)?;
            let name = operations::tag(rpc);
            if !tags.iter().any(|tag| tag["name"] == name) {
                tags.push(json!({"name": name, "description": schemas.comments.of_service(&method)}));
            }
            let example = example(&operations::id(rpc, &method));
            Some(operations::of_rpc(route, rpc, &method, &example, schemas))
        }
    }
}

fn rpcs(table: &Table) -> impl Iterator<Item = (&Route, &Rpc)> {
    table.routes().filter_map(|route| match &route.endpoint {
        Endpoint::Rpc(rpc) => Some((route, rpc.as_ref())),
        Endpoint::Native(_) => None,
    })
}

/// Returns the pool that the methods of a table are in; an empty one if it has none.
fn pool_of(table: &Table) -> DescriptorPool {
    rpcs(table).next().map_or_else(DescriptorPool::new, |(_, rpc)| rpc.input.parent_pool().clone())
}

fn method_of(pool: &DescriptorPool, rpc: &Rpc) -> Option<MethodDescriptor> {
    let name = rpc.grpc_path.path().rsplit('/').next()?;
    pool.get_service_by_name(&rpc.service)?.methods().find(|method| method.name() == name)
}
