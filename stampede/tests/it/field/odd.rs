//! Ambiguous requests, which two parsers may read in two ways, and streams that have ended, at a gateway before a whole
//! mesh.

use super::{
    item, plays_long_cases,
    raw::{self, whole},
    tools,
    visitor::Visitor,
    wish,
};
use crate::{
    roles::token,
    sale::{LONG, Sale, eur, fresh, in_us},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use stampede_proto::event::v1::{CreateEventRequest, Event};
use stampede_testkit::{Mesh, Process, as_operator, eventually};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const JSON: &str = "application/json";
/// Longest wait for a part of a stream, however slow the machine is.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Time until an event closes that opens soon.
const CLOSES_IN: Duration = Duration::from_millis(2_500);
/// Watchers of a gateway that leaves. In the field they were a thousand, which need more open files than a process may
/// have on many machines.
const WATCHERS: usize = 100;
const MANY_WATCHERS: usize = 400;
/// The least by which the first and the last of them come back apart, in milliseconds.
const SPREAD_MS: u64 = 1_500;

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

/// An event that is closed soon after it was opened.
async fn closing_soon(mesh: &Mesh) -> Event {
    let request = CreateEventRequest { close_time: in_us(CLOSES_IN), ..wish(item(eur(1_999), 1, 1)) };
    mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_read_as_meant_or_refused() {
    let mut sale = Sale::open(LONG).await;
    let caller = Caller::of(&sale);
    let closing = closing_soon(&sale.mesh).await;
    tools::case_01_a_compressed_request_is_read_or_refused_by_naming_what_is_read(&sale.mesh).await;
    tools::case_02_tools_that_ask_for_the_older_reflection_find_every_service(&sale.mesh).await;
    case_11_a_field_that_is_given_twice_is_refused_by_its_name(&sale, &caller).await;
    case_13_only_what_stands_unescaped_is_a_verb_or_a_slash(&caller).await;
    raw::case_17_clients_of_old_get_whole_answers(&sale).await;
    case_19_who_comes_back_to_a_stream_that_has_ended_is_told_to_stay_away(&mut sale, &caller, &closing).await;
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

async fn case_19_who_comes_back_to_a_stream_that_has_ended_is_told_to_stay_away(
    sale: &mut Sale,
    caller: &Caller,
    closing: &Event,
) {
    let event = sale.event.event_id.clone();
    let watch = format!("/v1/events:watch?event_ids={event}");
    watchers_of_a_gateway_that_restarts_come_back_at_different_times(sale, caller, &watch).await;
    let (fulfilled, cancelled) = (caller.places(sale).await, caller.places(sale).await);
    caller.pays(&fulfilled).await;
    caller.cancels(&format!("/v1/orders/{cancelled}:cancel"), &caller.token, json!({"request_id": fresh()})).await;
    caller.cancels(&format!("/v1/events/{event}:cancel"), &token(&sale.mesh, "operator"), json!({})).await;

    let closed = &closing.event_id;
    for path in [
        format!("/v1/orders/{fulfilled}:watch"),
        format!("/v1/orders/{cancelled}:watch"),
        watch,
        format!("/v1/events/{event}/stock:watch"),
        format!("/v1/events:watch?event_ids={closed}"),
        format!("/v1/events/{closed}/stock:watch"),
    ] {
        let path = format!("GET {path}");
        let answer = caller.asks(&path, "", "").await;
        assert_eq!(answer.status, 200, "case 19: {path}: {}", answer.text);
        for field in ["retry: ", "data: ", "event: end", "id: end"] {
            assert!(answer.text.contains(field), "case 19: {path} has no {field:?}: {}", answer.text);
        }
        // As a browser does, with the id that it saw last. It comes no third time.
        let again = caller.asks(&path, "last-event-id: end", "").await;
        assert_eq!(again.status, 204, "case 19: {path}: {}", again.text);
    }
}

impl Caller {
    /// Places an order of one unit. Returns its id.
    async fn places(&self, sale: &Sale) -> String {
        let (event, item) = (&sale.event.event_id, &sale.event.items[0].item_id);
        let wish = json!({"request_id": fresh(), "event_id": event, "lines": [{"item_id": item, "units": 1}]});
        let placed = self.gateway.post("/v1/orders", &self.token, JSON, wish.to_string()).await;
        assert_eq!(placed.status, StatusCode::OK, "case 19: {placed:?}");
        placed.json["order_id"].as_str().unwrap().to_owned()
    }

    /// Pays an order, once it may be paid.
    async fn pays(&self, order: &str) {
        let (path, request_id) = (format!("/v1/orders/{order}:pay"), fresh());
        let payment = json!({"request_id": request_id, "payment_method": "pm_card_ok"}).to_string();
        eventually("case 19: the order is paid", || async {
            let paid = self.gateway.post(&path, &self.token, JSON, payment.clone()).await;
            (paid.status == StatusCode::OK).then_some(())
        })
        .await;
        let path = format!("/v1/orders/{order}");
        eventually("case 19: the order is fulfilled", || async {
            let order = self.gateway.get(&path, &self.token).await.json;
            (order["state"] == "ORDER_STATE_FULFILLED").then_some(())
        })
        .await;
    }

    async fn cancels(&self, path: &str, token: &str, body: Value) {
        let cancelled = self.gateway.post(path, token, JSON, body.to_string()).await;
        assert_eq!(cancelled.status, StatusCode::OK, "case 19: {path}: {cancelled:?}");
    }

    /// Opens a stream, whose beginning arrives.
    async fn watches(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(MAX_WAIT, socket.read_exact(&mut status)).await.expect("case 19: a stream begins").unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "case 19: {path}: {}", String::from_utf8_lossy(&status));
        socket
    }
}

/// They are told when to come back, each another time, and do.
async fn watchers_of_a_gateway_that_restarts_come_back_at_different_times(
    sale: &mut Sale,
    caller: &Caller,
    path: &str,
) {
    let count = if plays_long_cases() { MANY_WATCHERS } else { WATCHERS };
    let watchers = join_all((0..count).map(|_| caller.watches(path))).await;
    sale.mesh.terminate(Process::Gateway).await.unwrap();
    let mut delays: Vec<u64> = Vec::new();
    for mut watcher in watchers {
        let mut rest = Vec::new();
        // An end or a reset, both are closed.
        let _ = timeout(MAX_WAIT, watcher.read_to_end(&mut rest)).await.expect("case 19: the stream ends");
        let rest = String::from_utf8_lossy(&rest);
        let delay = rest.split_once("event: drain\nretry: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        delays.push(delay.unwrap_or_else(|| panic!("case 19: a gateway that leaves does not say when: {rest}")));
    }
    let (least, most) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
    assert!(most - least >= SPREAD_MS, "case 19: {count} come back after {least} to {most} ms: {delays:?}");
    sale.mesh.restart(Process::Gateway).await.unwrap();
    join_all((0..count).map(|_| caller.watches(path))).await;
}
