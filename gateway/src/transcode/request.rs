//! An HTTP request as the message that its method takes.

use super::{json, query, text};
use crate::routes::Rpc;
use http::Uri;
use prost_reflect::{DynamicMessage, Value};
use stampede_status::Problem;

/// Puts body, query and path together.
pub fn assemble(rpc: &Rpc, uri: &Uri, body: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut message = read_body(rpc, body)?;
    query::apply(rpc, uri.query().unwrap_or_default(), &mut message)?;
    apply_path(rpc, uri.path(), &mut message)?;
    Ok(message)
}

fn read_body(rpc: &Rpc, body: &[u8]) -> Result<DynamicMessage, Problem> {
    match &rpc.raw_body {
        None if rpc.has_body => json::read(&rpc.input, body),
        None => Ok(DynamicMessage::new(rpc.input.clone())),
        Some(field) => {
            let refuse = |_| Problem::invalid_field(field.name(), "must be text in UTF-8");
            let text = std::str::from_utf8(body).map_err(refuse)?;
            let mut message = DynamicMessage::new(rpc.input.clone());
            message.set_field(field, Value::String(text.to_owned()));
            Ok(message)
        }
    }
}

/// Sets the field of the path, which names the resource. Refuses a body that names another one.
fn apply_path(rpc: &Rpc, path: &str, message: &mut DynamicMessage) -> Result<(), Problem> {
    if let Some(variable) = &rpc.variable {
        let field = &variable.field;
        let in_body = text::get(message, field);
        text::set(message, field, &text::decode(field, variable.text(path))?)?;
        if in_body.is_some() && in_body != text::get(message, field) {
            return Err(Problem::invalid_field(field.to_string(), "is not the one in the path"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table};
    use http::Method;
    use proptest::{
        collection::{btree_map, vec},
        prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest},
        sample::Index,
    };
    use prost_reflect::SerializeOptions;
    use serde_json::json;
    use stampede_status::Reason;
    use std::sync::LazyLock;

    fn message(method: Method, uri: &str, body: &[u8]) -> Result<DynamicMessage, Problem> {
        static TABLE: LazyLock<Table> = LazyLock::new(|| Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap());
        let uri: Uri = uri.parse().unwrap();
        let Lookup::Found(route) = TABLE.find(&method, uri.path()) else { panic!("{uri} has no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("{uri} is the gateway's own") };
        assemble(rpc, &uri, body)
    }

    fn assembled(method: Method, uri: &str, body: &str) -> Result<serde_json::Value, Problem> {
        let message = message(method, uri, body.as_bytes())?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        Ok(message.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
    }

    #[test]
    fn requests_are_put_together_from_body_query_and_path() {
        for (method, uri, body, expected) in [
            (Method::GET, "/v1/orders/ord_1", "", json!({"order_id": "ord_1"})),
            (Method::GET, "/v1/orders/a%2Fb%20c", "", json!({"order_id": "a/b c"})),
            (Method::GET, "/v1/orders?page_size=7&event_id=evt_1", "", json!({"page_size": 7, "event_id": "evt_1"})),
            (Method::GET, "/v1/orders?pageSize=7&", "", json!({"page_size": 7})),
            (Method::GET, "/v1/orders?page_token=a+b%2Bc", "", json!({"page_token": "a b+c"})),
            (Method::GET, "/v1/events:watch?event_ids=a&event_ids=b", "", json!({"event_ids": ["a", "b"]})),
            (Method::GET, "/v1/events/evt_1/stock:watch", "", json!({"event_id": "evt_1"})),
            (Method::POST, "/v1/orders/ord_1:cancel", "", json!({"order_id": "ord_1"})),
            (Method::POST, "/v1/orders/ord_1:cancel", " {\n} ", json!({"order_id": "ord_1"})),
            (
                Method::POST,
                "/v1/orders/ord_1:pay",
                r#"{"request_id":"r"}"#,
                json!({"order_id": "ord_1", "request_id": "r"}),
            ),
            (Method::POST, "/v1/orders/ord_1:cancel", r#"{"orderId":"ord_1"}"#, json!({"order_id": "ord_1"})),
            (
                Method::POST,
                "/v1/orders",
                r#"{"lines":[{"item_id":"itm_1","units":2}],"max_total":{"minor_units":"9007199254740993","currency":"EUR"}}"#,
                json!({
                    "lines": [{"item_id": "itm_1", "units": 2}],
                    "max_total": {"minor_units": "9007199254740993", "currency": "EUR"},
                }),
            ),
            (
                Method::POST,
                "/v1/orders",
                r#"{"eventId":"evt_1","maxTotal":{"minorUnits":5,"currency":"EUR"}}"#,
                json!({"event_id": "evt_1", "max_total": {"minor_units": "5", "currency": "EUR"}}),
            ),
            (
                Method::POST,
                "/v1/orders",
                r#"{"lines":[{"units":1e2},{"units":"1e2"},{"units":"1.0"}],"max_total":{"minor_units":1.0},"coupon_id":null}"#,
                json!({"lines": [{"units": 100}, {"units": 100}, {"units": 1}], "max_total": {"minor_units": "1"}}),
            ),
            (
                Method::POST,
                "/v1/events",
                r#"{"open_time":"2026-01-31T09:00:00Z"}"#,
                json!({"open_time": "2026-01-31T09:00:00Z"}),
            ),
            (Method::GET, "/v1/orders/ord_1:watch?ticket=x.y.z", "", json!({"order_id": "ord_1"})),
        ] {
            assert_eq!(assembled(method, uri, body).unwrap(), expected, "{uri} {body}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        use Reason::{InvalidField, MalformedJson, UnknownField};
        for (method, uri, body, reason, field) in [
            (Method::GET, "/v1/orders?nothing=1", "", UnknownField, Some("nothing")),
            (Method::GET, "/v1/orders?page_size.x=1", "", UnknownField, Some("page_size.x")),
            (Method::GET, "/v1/orders?page_size=many", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?page_size=99999999999", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?page_size=1&pageSize=2", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?event_id=%FF", "", InvalidField, Some("event_id")),
            (Method::GET, "/v1/orders/%FF", "", InvalidField, Some("order_id")),
            (Method::GET, "/v1/orders/ord_1?order_id=ord_2", "", InvalidField, Some("order_id")),
            (Method::POST, "/v1/orders?event_id=evt_1", "{}", InvalidField, Some("event_id")),
            (Method::POST, "/v1/orders?nothing=1", "{}", UnknownField, Some("nothing")),
            (Method::POST, "/v1/orders/ord_1:cancel", r#"{"order_id":"ord_2"}"#, InvalidField, Some("order_id")),
            (Method::POST, "/v1/orders", "{", MalformedJson, None),
            (Method::POST, "/v1/orders", "{} {}", MalformedJson, None),
            (Method::POST, "/v1/orders", "[]", MalformedJson, None),
            (Method::POST, "/v1/orders", "null", MalformedJson, None),
            (Method::POST, "/v1/orders", r#"{"units":1}"#, UnknownField, Some("units")),
            (Method::POST, "/v1/orders", r#"{"event_id":7}"#, InvalidField, Some("event_id")),
            (Method::POST, "/v1/orders", r#"{"lines":{}}"#, InvalidField, Some("lines")),
            (Method::POST, "/v1/orders", r#"{"lines":[{},7]}"#, InvalidField, Some("lines[1]")),
            (
                Method::POST,
                "/v1/orders",
                r#"{"lines":[{"units":1},{"units":"x"}]}"#,
                InvalidField,
                Some("lines[1].units"),
            ),
            (Method::POST, "/v1/orders", r#"{"lines":[{"units":1.5}]}"#, InvalidField, Some("lines[0].units")),
            (Method::POST, "/v1/orders", r#"{"lines":[{"unit":1}]}"#, UnknownField, Some("lines[0].unit")),
            (Method::POST, "/v1/orders", r#"{"maxTotal":{"minor":1}}"#, UnknownField, Some("max_total.minor")),
            (Method::POST, "/v1/events", r#"{"open_time":"tomorrow"}"#, InvalidField, Some("open_time")),
            (Method::POST, "/v1/orders", r#"{"request_id":"a","request_id":"a"}"#, InvalidField, Some("request_id")),
            (Method::POST, "/v1/orders", r#"{"request_id":"a","requestId":"b"}"#, InvalidField, Some("request_id")),
            (Method::POST, "/v1/orders", r#"{"coupon_id":null,"coupon_id":"c"}"#, InvalidField, Some("coupon_id")),
            (Method::POST, "/v1/orders", r#"{"lines":[{"units":1,"units":1}]}"#, InvalidField, Some("lines[0].units")),
            (Method::POST, "/v1/orders", r#"{"lines":[{"units":"+2"}]}"#, InvalidField, Some("lines[0].units")),
            (Method::POST, "/v1/orders", r#"{"lines":[{"units":2147483648}]}"#, InvalidField, Some("lines[0].units")),
            (Method::POST, "/v1/orders", r#"{"lines":[null]}"#, InvalidField, Some("lines[0]")),
            (
                Method::POST,
                "/v1/orders",
                r#"{"max_total":{"minor_units":9.223372036854775808e18}}"#,
                InvalidField,
                Some("max_total.minor_units"),
            ),
            (Method::GET, "/v1/orders?ticket=x.y.z", "", UnknownField, Some("ticket")),
        ] {
            let problem = assembled(method, uri, body).expect_err(uri);
            for word in ["expected", "invalid", "serde", "type"] {
                assert!(!problem.detail().contains(word), "the words of a library: {problem}");
            }
            assert_eq!((problem.reason(), problem.field_path()), (reason, field), "{uri} {body}: {problem}");
        }
    }

    const PLACE: &str = r#"{"request_id":"r","event_id":"evt_1","lines":[{"item_id":"itm_1","units":2}],
        "max_total":{"minor_units":"9007199254740993","currency":"EUR"},"coupon_id":null}"#;

    /// Returns whether the contract allows this problem for a request that does not fit.
    fn is_refusal_of_a_request(problem: &Problem) -> bool {
        matches!(problem.reason(), Reason::InvalidField | Reason::UnknownField | Reason::MalformedJson)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_damaged_body_is_read_or_refused(cuts in vec((any::<Index>(), any::<u8>()), 0..6), end in any::<Index>()) {
            let mut body = PLACE.as_bytes().to_vec();
            for (place, byte) in cuts {
                let place = place.index(body.len());
                body[place] = byte;
            }
            body.truncate(end.index(body.len() + 1));
            if let Err(problem) = message(Method::POST, "/v1/orders", &body) {
                prop_assert!(is_refusal_of_a_request(&problem), "{}", problem);
            }
        }

        #[test]
        fn any_json_is_read_or_refused_by_field(body in json_value()) {
            if let Err(problem) = message(Method::POST, "/v1/orders", body.to_string().as_bytes()) {
                prop_assert!(is_refusal_of_a_request(&problem), "{}", problem);
                prop_assert!(!body.is_object() || problem.field_path().is_some(), "{}: {}", body, problem);
            }
        }

        #[test]
        fn any_query_is_read_or_refused_by_field(query in "(page_size|pageToken|event_id|[a-z.]{0,9})=?[-%+&=a-z0-9]{0,30}") {
            if let Err(problem) = message(Method::GET, &format!("/v1/orders?{query}"), b"") {
                prop_assert!(is_refusal_of_a_request(&problem), "{}: {}", query, problem);
                prop_assert!(problem.field_path().is_some(), "{}: {}", query, problem);
            }
        }
    }

    /// Returns any JSON, in which fields of the contract are likely.
    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map_into(),
            any::<i64>().prop_map_into(),
            any::<f64>().prop_map_into(),
            ".{0,12}".prop_map_into(),
        ];
        let name = "request_id|eventId|lines|item_id|units|max_total|minorUnits|currency|coupon_id|[a-z]{0,4}";
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map_into(),
                btree_map(name, inner, 0..6).prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn malformed_json_is_reported_with_its_place() {
        let problem = assembled(Method::POST, "/v1/orders", "{\n  \"event_id\": oops}").unwrap_err();
        assert_eq!((problem.metadata()["line"].as_str(), problem.metadata()["column"].as_str()), ("2", "15"));
    }
}
