//! Encodings and times of HTTP/JSON that the gateway reads exactly, or refuses.

use super::{raw, visitor::Visitor};
use crate::{roles::token, sale::fresh};
use serde_json::{Value, json};
use sqlx::MySqlPool;
use stampede_testkit::{MeshBuilder, Process, Service, World};
use stampede_vocab::EventId;

const JSON: &str = "application/json";

/// An operator who creates events.
struct Operator {
    gateway: Visitor,
    token: String,
    /// The schema of events.
    events: MySqlPool,
}

impl Operator {
    /// Creates an event of this name. Returns the status and the answer.
    async fn create(&self, name: &str) -> (u16, Value) {
        self.create_with(&json!({"name": name})).await
    }

    /// Creates an event with these fields in place of the usual ones.
    async fn create_with(&self, fields: &Value) -> (u16, Value) {
        let mut body = event();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(JSON, body.to_string().into_bytes()).await
    }

    async fn send(&self, content_type: &str, body: Vec<u8>) -> (u16, Value) {
        let answer = self.gateway.post("/v1/events", &self.token, content_type, body).await;
        (answer.status.as_u16(), answer.json)
    }

    /// Checks that the event just created has this name, in whatever way it is read.
    async fn assert_named_as(&self, name: &str, created: &Value) {
        let event_id = created["event_id"].as_str().unwrap();
        let read = self.gateway.get(&format!("/v1/events/{event_id}"), "").await.json;
        let list = self.gateway.get("/v1/events", "").await.json;
        let listed = list["events"].as_array().unwrap().iter().find(|event| event["event_id"] == event_id);
        let watched = self.gateway.first_of(&format!("/v1/events:watch?event_ids={event_id}")).await;
        for (way, event) in [("created", created), ("read", &read), ("listed", listed.unwrap()), ("watched", &watched)]
        {
            assert_eq!(event["name"].as_str(), Some(name), "case 12: {name:?} as it is {way}: {event}");
        }
        let id: EventId = event_id.parse().unwrap();
        let stored = sqlx::query_scalar("SELECT name FROM events WHERE id = ?").bind(id.as_bytes());
        let stored: String = stored.fetch_one(&self.events).await.unwrap();
        assert_eq!(stored, name, "case 12: what the database has");
    }
}

/// The body of an event that opens long after the test.
fn event() -> Value {
    let item = json!({
        "title": "a kettle", "unit_price": {"minor_units": "1999", "currency": "EUR"}, "total_units": 10,
        "limit_per_buyer": 1,
    });
    json!({
        "request_id": fresh(), "name": "a sale", "open_time": "2090-01-01T00:00:00Z",
        "close_time": "2091-01-01T00:00:00Z", "items": [item],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_clients_are_read_exactly_or_refused() {
    let world = World::prepared().await.unwrap();
    // No time depends on the time zone of a process.
    let mesh = MeshBuilder::default().set_all("TZ", "America/New_York").start(&world, Process::all()).await.unwrap();
    let gateway = Visitor::of(mesh.url(Process::Gateway));
    let events = format!("{}?ssl-mode=disabled", world.service_database_url(Service::Event));
    let events = MySqlPool::connect(&events).await.unwrap();
    let operator = Operator { gateway, token: token(&mesh, "operator"), events };
    case_12_texts_come_back_by_every_code_point_or_are_refused(&operator).await;
    case_14_a_number_is_the_whole_one_that_was_sent_or_refused_by_its_field(&operator).await;
    case_15_a_time_is_the_same_instant_or_refused_by_its_field(&operator).await;
    let address = mesh.addresses(Process::Gateway)[0];
    raw::case_16_what_is_in_a_body_is_never_taken_for_a_request(address).await;
    raw::case_17_clients_of_old_get_whole_answers(address).await;
    mesh.stop().await.unwrap();
}

async fn case_12_texts_come_back_by_every_code_point_or_are_refused(operator: &Operator) {
    for name in [
        "Küche",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "e\u{301}",
        "\u{200f}שלום",
        "\u{ffff}",
        "\u{ffff} inside",
        "trailing blanks  ",
        "\u{a0}blanks of another kind\u{3000}\t",
        "\0",
        "a sale\0 and what is behind",
        "\u{1f389}".repeat(200).as_str(),
    ] {
        let (status, created) = operator.create(name).await;
        assert_eq!(status, 200, "case 12: {name:?}: {created}");
        operator.assert_named_as(name, &created).await;
    }
    let (status, refused) = operator.create(&"\u{1f389}".repeat(201)).await;
    assert_eq!((status, refused["field"].as_str()), (400, Some("name")), "case 12: 201 code points: {refused}");

    let body = event().to_string();
    let latin_1 = body.replace("a sale", "K?che").into_bytes();
    let latin_1: Vec<u8> = latin_1.into_iter().map(|byte| if byte == b'?' { 0xfc } else { byte }).collect();
    let utf_16: Vec<u8> = [0xfeff].into_iter().chain(body.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let with_a_mark = format!("\u{feff}{body}").into_bytes();
    let half_a_pair = body.replace("a sale", r"\ud83d").into_bytes();
    for (what, content_type, body) in [
        ("Latin-1", JSON, latin_1.clone()),
        ("Latin-1 that says so", "application/json; charset=ISO-8859-1", latin_1),
        ("UTF-16", JSON, utf_16),
        ("UTF-8 behind a byte order mark", JSON, with_a_mark),
        ("half a surrogate pair", JSON, half_a_pair),
        ("no JSON", "text/plain", body.into_bytes()),
    ] {
        let (status, refused) = operator.send(content_type, body).await;
        assert!([400, 415].contains(&status), "case 12: {what}: {status} {refused}");
    }
}

async fn case_14_a_number_is_the_whole_one_that_was_sent_or_refused_by_its_field(operator: &Operator) {
    let with_price = |price: &str| event().to_string().replace(r#""1999""#, price).into_bytes();
    for (sent, expected) in [
        ("1999.0", "1999"),
        ("1e3", "1000"),
        (r#""1e3""#, "1000"),
        ("9007199254740993", "9007199254740993"),
        (r#""9007199254740993""#, "9007199254740993"),
    ] {
        let (status, created) = operator.send(JSON, with_price(sent)).await;
        let price = &created["items"][0]["unit_price"]["minor_units"];
        assert_eq!((status, price.as_str()), (200, Some(expected)), "case 14: {sent}: {created}");
    }
    let of_price = "items[0].unit_price.minor_units";
    for odd in [
        "19.99",
        r#""19.99""#,
        r#"" 5""#,
        r#""+5""#,
        r#""007""#,
        r#""0x10""#,
        "-1",
        "0",
        "9223372036854775808",
        "9007199254740993.0",
        "true",
    ] {
        let (status, refused) = operator.send(JSON, with_price(odd)).await;
        assert_eq!((status, refused["field"].as_str()), (400, Some(of_price)), "case 14: {odd}: {refused}");
    }
    let body = event().to_string().replace(r#""total_units":10,"#, r#""total_units":10000001,"#);
    let (status, refused) = operator.send(JSON, body.into_bytes()).await;
    let field = refused["field"].as_str();
    assert_eq!((status, field), (400, Some("items[0].total_units")), "case 14: too many units: {refused}");
}

async fn case_15_a_time_is_the_same_instant_or_refused_by_its_field(operator: &Operator) {
    for (sent, expected) in [
        ("2090-06-01T12:00:00+09:00", "2090-06-01T03:00:00Z"),
        ("2090-06-01T12:00:00-04:00", "2090-06-01T16:00:00Z"),
        // The hour that clocks show twice in autumn.
        ("2089-11-06T01:30:00-04:00", "2089-11-06T05:30:00Z"),
        ("2089-11-06T01:30:00-05:00", "2089-11-06T06:30:00Z"),
    ] {
        let (status, created) = operator.create_with(&json!({"open_time": sent})).await;
        assert_eq!((status, created["open_time"].as_str()), (200, Some(expected)), "case 15: {sent}: {created}");
    }
    for odd in [
        "2090-01-01T00:00:00",
        "2090-01-01",
        "2090-13-01T00:00:00Z",
        "2090-02-30T00:00:00Z",
        "tomorrow",
        "0001-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "",
    ] {
        let (status, refused) = operator.create_with(&json!({"open_time": odd})).await;
        assert_eq!((status, refused["field"].as_str()), (400, Some("open_time")), "case 15: {odd:?}: {refused}");
    }
    // Read or refused: a time with ten digits, a leap second, or the last moment of all is no internal error.
    for edge in ["9999-12-31T23:59:59.999999999Z", "2090-12-31T23:59:60Z", "2090-06-01T12:00:00.1234567890Z"] {
        let (status, answer) = operator.create_with(&json!({"close_time": edge})).await;
        assert!([200, 400].contains(&status), "case 15: {edge}: {status} {answer}");
    }
}
