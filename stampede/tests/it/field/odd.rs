//! Ambiguous requests, which two parsers may read in two ways, and streams that have ended, at a gateway before a whole
//! mesh.

use super::{raw::whole, tools, visitor::Visitor};
use crate::{
    roles::token,
    sale::{LONG, Sale, fresh},
};
use http::StatusCode;
use serde_json::{Value, json};
use stampede_testkit::Process;
use std::net::SocketAddr;

const JSON: &str = "application/json";

/// A buyer who writes requests byte by byte.
struct Caller {
    gateway: Visitor,
    address: SocketAddr,
    token: String,
}

/// The status and the text of an answer.
struct Said {
    status: u16,
    text: String,
}

impl Caller {
    fn of(sale: &Sale) -> Self {
        let gateway = Visitor::of(sale.mesh.url(Process::Gateway));
        Self { gateway, address: sale.mesh.addresses(Process::Gateway)[0], token: token(&sale.mesh, "buyer") }
    }

    /// Sends a method and a path unchanged, with one more header line if it is not empty.
    async fn asks(&self, method_and_path: &str, header: &str, body: &str) -> Said {
        let (token, length) = (&self.token, body.len());
        let end_of_header = if header.is_empty() { "" } else { "\r\n" };
        let text = whole(
            self.address,
            &format!(
                "{method_and_path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\ncontent-type: {JSON}\r\n\
                 content-length: {length}\r\nconnection: close\r\n{header}{end_of_header}\r\n{body}"
            ),
        )
        .await;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method_and_path}: no status: {text}"));
        Said { status, text }
    }
}

impl Said {
    /// The status, the reason and the field of a refusal.
    fn refusal(&self) -> (u16, String, Option<String>) {
        let json = self.text.find('{').zip(self.text.rfind('}')).map(|(from, to)| &self.text[from..=to]);
        let problem: Value = serde_json::from_str(json.unwrap_or("null")).unwrap_or_default();
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        (self.status, text("reason").unwrap_or_default(), text("field"))
    }
}

fn refused(status: u16, reason: &str, field: Option<&str>) -> (u16, String, Option<String>) {
    (status, reason.to_owned(), field.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_read_as_meant_or_refused() {
    let sale = Sale::open(LONG).await;
    let caller = Caller::of(&sale);
    tools::case_01_a_compressed_request_is_read_or_refused_by_naming_what_is_read(&sale.mesh).await;
    tools::case_02_tools_that_ask_for_the_older_reflection_find_every_service(&sale.mesh).await;
    case_11_a_field_that_is_given_twice_is_refused_by_its_name(&sale, &caller).await;
    case_13_only_what_stands_unescaped_is_a_verb_or_a_slash(&caller).await;
    case_19_who_comes_back_to_a_stream_that_has_ended_is_told_to_stay_away(&sale, &caller).await;
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

/// Either reading would be an order.
async fn case_11_a_field_that_is_given_twice_is_refused_by_its_name(sale: &Sale, caller: &Caller) {
    let (event, item) = (&sale.event.event_id, &sale.event.items[0].item_id);
    let line = format!(r#"{{"item_id":"{item}","units":1}}"#);
    let price = r#""currency":"EUR","minor_units":"1999","minorUnits":"5000""#;
    for (field, fields) in [
        ("lines[0].units", format!(r#""request_id":"a","lines":[{{"item_id":"{item}","units":1,"units":2}}]"#)),
        ("request_id", format!(r#""request_id":"a","requestId":"b","lines":[{line}]"#)),
        ("lines", format!(r#""request_id":"a","lines":[{line}],"lines":[{line}]"#)),
        ("max_total.minor_units", format!(r#""request_id":"a","lines":[{line}],"max_total":{{{price}}}"#)),
    ] {
        let body = format!(r#"{{"event_id":"{event}",{fields}}}"#);
        let said = caller.asks("POST /v1/orders", "", &body).await;
        assert_eq!(said.refusal(), refused(400, "INVALID_FIELD", Some(field)), "case 11: {body}: {}", said.text);
    }
    let listed = caller.gateway.get("/v1/orders", &caller.token).await.json;
    assert!(listed["orders"].as_array().is_none_or(Vec::is_empty), "case 11: an order was placed: {listed}");
}

async fn case_13_only_what_stands_unescaped_is_a_verb_or_a_slash(caller: &Caller) {
    let unknown = refused(404, "UNKNOWN_PATH", None);
    let bad = |field: &str| refused(400, "INVALID_FIELD", Some(field));
    let body = r#"{"request_id":"p","payment_method":"pm_card_ok"}"#;
    for (asked, expected) in [
        ("POST /v1/orders/ord_x%3Apay", refused(405, "METHOD_NOT_ALLOWED", None)),
        ("POST /v1/orders/ord_x:%70ay", bad("order_id")),
        ("POST /v1/orders/ord_x:pay/", unknown.clone()),
    ] {
        assert_eq!(caller.asks(asked, "", body).await.refusal(), expected, "case 13: {asked}");
    }
    for (asked, expected) in [
        ("/v1/orders/ord_x%3Apay", bad("order_id")),
        ("/v1/orders/a%2Fb", bad("order_id")),
        ("/v1/orders/%00", bad("order_id")),
        ("/v1/orders/%ff", bad("order_id")),
        ("/v1/orders/%zz", bad("order_id")),
        ("/v1/orders/ord_x;x=1", bad("order_id")),
        ("/v1/orders/", unknown.clone()),
        ("/v1/orders//", unknown.clone()),
        ("/v1//orders", unknown),
        ("/v1/orders?page_size=", bad("page_size")),
        ("/v1/orders?page_size=+5", bad("page_size")),
        ("/v1/orders?page_size=1&page_size=2", bad("page_size")),
        ("/v1/orders?event_id=a%00", bad("event_id")),
        ("/v1/events:watch?event_ids=a,b", bad("event_ids[0]")),
        ("/v1/events:watch?event_ids=a&event_ids=b", bad("event_ids[0]")),
        ("/v1/events:watch?event_ids[]=a", refused(400, "UNKNOWN_FIELD", Some("event_ids[]"))),
    ] {
        assert_eq!(caller.asks(&format!("GET {asked}"), "", "").await.refusal(), expected, "case 13: {asked}");
    }
    // The JSON names of fields are accepted too.
    assert_eq!(caller.asks("GET /v1/orders?pageSize=5", "", "").await.status, 200, "case 13: pageSize");
}

async fn case_19_who_comes_back_to_a_stream_that_has_ended_is_told_to_stay_away(sale: &Sale, caller: &Caller) {
    let (event, item) = (&sale.event.event_id, &sale.event.items[0].item_id);
    let wish = json!({"request_id": fresh(), "event_id": event, "lines": [{"item_id": item, "units": 1}]});
    let placed = caller.gateway.post("/v1/orders", &caller.token, JSON, wish.to_string()).await;
    assert_eq!(placed.status, StatusCode::OK, "case 19: {placed:?}");
    let order = placed.json["order_id"].as_str().unwrap();
    let operator = token(&sale.mesh, "operator");
    for (cancel, who) in
        [(format!("/v1/orders/{order}:cancel"), &caller.token), (format!("/v1/events/{event}:cancel"), &operator)]
    {
        let body = if who == &operator { json!({}) } else { json!({"request_id": fresh()}) };
        let cancelled = caller.gateway.post(&cancel, who, JSON, body.to_string()).await;
        assert_eq!(cancelled.status, StatusCode::OK, "case 19: {cancel}: {cancelled:?}");
    }

    for path in [
        format!("GET /v1/orders/{order}:watch"),
        format!("GET /v1/events:watch?event_ids={event}"),
        format!("GET /v1/events/{event}/stock:watch"),
    ] {
        let answer = caller.asks(&path, "", "").await;
        assert_eq!(answer.status, 200, "case 19: {path}: {}", answer.text);
        for field in ["retry: ", "data: ", "event: end", "id: end"] {
            assert!(answer.text.contains(field), "case 19: {path} has no {field:?}: {}", answer.text);
        }
        // As a browser does, with the id that it saw last.
        let again = caller.asks(&path, "last-event-id: end", "").await;
        assert_eq!(again.status, 204, "case 19: {path}: {}", again.text);
    }
}
