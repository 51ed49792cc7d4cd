//! Parameters of operations: variables of paths, fields in queries, headers.

use super::schemas::Schemas;
use crate::routes::Rpc;
use http::Method;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

/// Deepest nesting of the fields of a query.
const MOST_DEPTH: usize = 3;

/// Returns the headers that operations refer to as parameters.
pub fn shared() -> Value {
    let header = |name: &str, description: &str, example: &str| {
        json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": {"type": "string"},
            "example": example,
        })
    };
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Stands for the `request_id` of the body; if both are there, they must be the same.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,64}$"},
        },
        "IfNoneMatch": header(
            "If-None-Match",
            "The `ETag` of the answer that is known: 304 if it still holds.",
            "\"0\"",
        ),
        "LastEventId": header(
            "Last-Event-ID",
            "The `id` of the last event that was seen, as browsers send it. A first message that says the same is left \
             out; after `end` the answer is 204.",
            "0123456789abcdef",
        ),
    })
}

/// Returns all parameters of a method at its route.
pub fn of_rpc(method: &Method, rpc: &Rpc, schemas: &mut Schemas) -> Vec<Value> {
    let mut all = Vec::new();
    if let Some(variable) = &rpc.variable {
        let field = variable.field.last();
        let mut parameter = parameter(&variable.field.to_string(), "path", field, schemas);
        parameter["required"] = json!(true);
        // An empty segment is another path.
        if parameter["schema"]["type"] == "string" && parameter["schema"].get("minLength").is_none() {
            parameter["schema"]["minLength"] = json!(1);
        }
        all.push(parameter);
    }
    if !rpc.has_body {
        in_query(&rpc.input, rpc, "", schemas, &mut all);
    }
    for (name, field) in &rpc.headers {
        let mut parameter = parameter(name.as_str(), "header", field, schemas);
        if schemas.is_required(field) {
            parameter["required"] = json!(true);
        }
        all.push(parameter);
    }
    if rpc.request_id.is_some() {
        all.push(refer("IdempotencyKey"));
    }
    if rpc.streaming {
        all.push(refer("LastEventId"));
    } else if *method == Method::GET {
        all.push(refer("IfNoneMatch"));
    }
    all
}

/// Refers to a shared parameter.
pub fn refer(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn in_query(message: &MessageDescriptor, rpc: &Rpc, above: &str, schemas: &mut Schemas, all: &mut Vec<Value>) {
    for field in message.fields().filter(|field| !rpc.has_in_path(field)) {
        let name = format!("{above}{}", field.name());
        match inner(&field) {
            Some(inner) if name.matches('.').count() < MOST_DEPTH => {
                in_query(&inner, rpc, &format!("{name}."), schemas, all);
            }
            Some(_) => {}
            None => {
                let mut parameter = parameter(&name, "query", &field, schemas);
                if above.is_empty() && schemas.is_required(&field) {
                    parameter["required"] = json!(true);
                }
                all.push(parameter);
            }
        }
    }
}

/// Returns the message whose fields stand for this one in a query; `None` for a field that is a single text there.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(inner) if inner.package_name() != "google.protobuf" => Some(inner),
        _ => None,
    }
}

fn parameter(name: &str, place: &str, field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    let mut schema = schemas.of_field(field);
    // The parameter has it already.
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    json!({"name": name, "in": place, "description": description.unwrap_or_else(|| json!("")), "schema": schema})
}
