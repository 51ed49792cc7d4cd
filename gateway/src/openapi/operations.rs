//! The operation of a method of the contract: its parameters, its answer and its problems.

use super::{
    comments::first_sentence,
    examples::Example,
    parameters, reasons, responses,
    schemas::{Schemas, reference},
};
use crate::routes::{Access, Route, Rpc};
use http::Method;
use prost_reflect::{Kind, MethodDescriptor};
use serde_json::{Value, json};

/// The description of the events of a stream beside its messages.
const EVENTS: &str = "Server-sent events. Those without a name have a message as their data and an `id` that names \
    what it says: the whole thing as it is now, at first and at each change. `time` tells the time of the server, at \
    first and in silence. `problem`, `end` and `drain` are the last of a stream: it broke, nothing more will come, or \
    this server leaves and another one is to be asked.";

/// Describes a method at its route.
pub fn of_rpc(route: &Route, rpc: &Rpc, method: &MethodDescriptor, example: &Example, schemas: &mut Schemas) -> Value {
    let comment = schemas.comments.of_method(method).to_owned();
    let mut operation = json!({
        "operationId": id(rpc, method),
        "tags": [tag(rpc)],
        "summary": first_sentence(&comment),
        "description": comment,
        "security": security(route),
    });
    let mut parameters = parameters::of_rpc(&route.method, rpc, schemas);
    parameters.iter_mut().for_each(|parameter| example.put_in(parameter));
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if rpc.has_body {
        operation["requestBody"] = body(rpc, example, schemas);
    }
    let mut all = responses::failures(&reasons::of_rpc(route, rpc, &comment));
    all.insert("200".to_owned(), answer(route, rpc, schemas));
    if rpc.streaming {
        all.insert("204".to_owned(), responses::success("The reader has seen the `end` before.", None, false));
    } else if route.method == Method::GET {
        all.insert("304".to_owned(), responses::success("The answer that is known still holds.", None, true));
    }
    operation["responses"] = Value::Object(all);
    operation
}

/// Returns the id of an operation: service and method, as generators make names of it.
pub fn id(rpc: &Rpc, method: &MethodDescriptor) -> String {
    let service = rpc.service.rsplit('.').next().unwrap_or_default();
    format!("{service}_{}", method.name())
}

/// Returns the tag of a service: `order` for `stampede.order.v1.OrderService`.
pub fn tag(rpc: &Rpc) -> &str {
    rpc.service.split('.').nth(1).unwrap_or(&rpc.service)
}

/// Returns the credentials that a route takes, each in place of the others; none where it is open to all.
pub fn security(route: &Route) -> Value {
    match route.access {
        Access::Public => json!([]),
        Access::Operator => json!([{"bearer": ["operator"]}]),
        Access::Authenticated if route.is_stream() => json!([{"bearer": []}, {"ticket": []}]),
        Access::Authenticated => json!([{"bearer": []}]),
    }
}

fn body(rpc: &Rpc, example: &Example, schemas: &mut Schemas) -> Value {
    if let Some(field) = &rpc.raw_body {
        let content = json!({
            "schema": {"type": "object", "description": schemas.comments.of_field(field)},
            "example": example.body,
        });
        return json!({"required": true, "content": {"application/json": content}});
    }
    let is_needed = rpc.input.fields().any(|field| !rpc.has_in_path(&field) && schemas.is_required(&field));
    // A header may stand for the only field that is needed.
    let is_needed = is_needed && rpc.input.fields().filter(|field| !rpc.has_in_path(field)).count() > 1;
    let mut content = json!({"schema": schemas.of_body(rpc)});
    if let Some(body) = &example.body {
        content["example"] = body.clone();
    }
    json!({"required": is_needed, "content": {"application/json": content}})
}

fn answer(route: &Route, rpc: &Rpc, schemas: &mut Schemas) -> Value {
    let message = match rpc.response_body.as_ref().map(|field| field.kind()) {
        Some(Kind::Message(message)) => schemas.of_message(&message),
        _ => schemas.of_message(&rpc.output),
    };
    if !rpc.streaming {
        return responses::success(
            "Done.",
            Some(("application/json", json!({"schema": message}))),
            route.method == Method::GET,
        );
    }
    let time = reference("ServerTime");
    let content = json!({
        "schema": {"type": "string"},
        "x-event-data": {
            "message": message,
            "time": time,
            "problem": reference("Problem"),
            "end": time,
            "drain": time,
        },
    });
    responses::success(EVENTS, Some(("text/event-stream", content)), false)
}
