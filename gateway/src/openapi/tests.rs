//! The description is whole, fits the routes, and is the one in docs/.

use super::*;
use crate::transcode::assemble;
use http::Uri;
use std::{collections::BTreeSet, fs, path::Path};

fn table() -> Table {
    Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap()
}

/// Returns each operation with its path.
fn operations(document: &Value) -> Vec<(&str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        let of_path = methods.as_object().unwrap().values();
        of_path.map(move |operation| (path.as_str(), operation))
    });
    all.collect()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn the_copy_in_docs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let copy = fs::read_to_string(path).unwrap_or_default();
    assert!(
        copy == text(&table()).unwrap(),
        "docs/openapi.json is not that of the contract: run `cargo xtask openapi`"
    );
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    let document = document(&table());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some_and(|target| !target.is_null()), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is referred to by nothing");
    }
}

#[test]
fn every_route_is_an_operation_with_an_id_of_its_own() {
    let (table, mut ids) = (table(), BTreeSet::new());
    let document = document(&table);
    for route in table.routes() {
        let operation = &document["paths"][&*route.template][route.method.as_str().to_ascii_lowercase()];
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{} is not described", route.name));
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|text| !text.is_empty()), "{id} has no {text}");
        }
        assert!(operation["security"].is_array(), "{id}");
        let success = operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('2'));
        assert!(success, "{id} never succeeds");
    }
    assert_eq!(operations(&document).len(), ids.len(), "nothing is described that is no route");
}

#[test]
fn each_variable_of_a_path_is_a_parameter() {
    let document = document(&table());
    for (path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let declared: Vec<_> = parameters.iter().filter(|parameter| parameter["in"] == "path").collect();
        let variable = path.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(name, _)| name);
        let names: Vec<_> = declared.iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        assert_eq!(names, variable.into_iter().collect::<Vec<_>>(), "{path}");
        assert!(declared.iter().all(|parameter| parameter["required"] == true), "{path}");
    }
}

#[test]
fn the_reasons_of_a_method_are_those_of_its_comment_and_of_all() {
    let document = document(&table());
    let at = |status: &str| {
        let schema = "/paths/~1v1~1orders/post/responses/STATUS/content/application~1problem+json/schema";
        let schema = document.pointer(&schema.replace("STATUS", status)).unwrap();
        schema["allOf"][1]["properties"]["reason"]["enum"].as_array().unwrap().clone()
    };
    for (status, reason) in
        [("409", "SOLD_OUT"), ("404", "EVENT_NOT_FOUND"), ("401", "TOKEN_EXPIRED"), ("429", "THROTTLED")]
    {
        assert!(at(status).contains(&json!(reason)), "{reason}");
    }
    assert!(!at("409").contains(&json!("ORDER_NOT_PAYABLE")));
}

#[test]
fn a_stream_is_of_events_and_takes_a_ticket() {
    let document = document(&table());
    let watch = &document["paths"]["/v1/orders/{order_id}:watch"]["get"];
    assert_eq!(watch["security"], json!([{"bearer": []}, {"ticket": []}]));
    let events = &watch["responses"]["200"]["content"]["text/event-stream"]["x-event-data"];
    assert!(events["message"]["$ref"].is_string() && events["problem"]["$ref"].is_string(), "{watch}");
}

#[test]
fn a_key_may_stand_for_the_request_id() {
    let document = document(&table());
    let place = &document["paths"]["/v1/orders"]["post"]["parameters"];
    assert!(place.as_array().unwrap().contains(&parameters::refer("IdempotencyKey")), "{place}");
    let required = &document["components"]["schemas"]["PlaceOrderRequest"]["required"];
    assert!(required.as_array().is_none_or(|names| !names.contains(&json!("request_id"))), "{required}");
}

#[test]
fn every_example_is_a_request_that_the_gateway_reads() {
    let (table, mut examples) = (table(), examples::all());
    let pool = pool_of(&table);
    for (route, rpc) in rpcs(&table) {
        let id = operations::id(rpc, &method_of(&pool, rpc).unwrap());
        let example = examples.remove(&id).unwrap_or_else(|| panic!("{id} has no example"));
        let body = example.body.as_ref().map(Value::to_string).unwrap_or_default();
        assert_eq!(example.body.is_some(), rpc.has_body, "{id}");
        let uri = uri_of(&route.template, &example);
        assert!(!uri.path().contains('{'), "{id} leaves a variable open: {uri}");
        assemble(rpc, &uri, body.as_bytes()).unwrap_or_else(|problem| panic!("{id}: {problem}"));
    }
    let document = document(&table);
    for (id, example) in examples {
        let all = operations(&document);
        let own = all.iter().find(|(_, operation)| operation["operationId"] == id);
        let (_, own) = own.unwrap_or_else(|| panic!("{id} is no operation"));
        let known = &own["requestBody"]["content"]["application/json"]["schema"]["properties"];
        for name in example.body.unwrap().as_object().unwrap().keys() {
            assert!(known.get(name).is_some(), "{id}: {name}");
        }
    }
}

fn uri_of(template: &str, example: &Example) -> Uri {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let path = example
        .path
        .iter()
        .fold(template.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), &text(value)));
    let pairs = example.query.iter().flat_map(|(name, value)| match value {
        Value::Array(items) => items.iter().map(|item| format!("{name}={}", text(item))).collect::<Vec<_>>(),
        value => vec![format!("{name}={}", text(value))],
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&")).parse().unwrap()
}
