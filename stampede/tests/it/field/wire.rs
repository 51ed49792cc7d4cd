//! Encodings and times of HTTP/JSON that the gateway reads exactly, or refuses.

use super::{micros, raw, visitor::Visitor};
use crate::{
    roles::token,
    sale::{fresh, in_us},
};
use serde_json::{Value, json};
use sqlx::MySqlPool;
use stampede_lua::{Redis, RedisConfig, stock::Stock};
use stampede_proto::convert::timestamp;
use stampede_testkit::{MeshBuilder, Process, Service, World, eventually};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;

const JSON: &str = "application/json";
/// Time until an event opens: enough to create it, however slow the machine is.
const OPENS_IN: Duration = Duration::from_secs(2);
/// Largest lateness of its opening while other tests load the machine; a wrong zone is an hour.
const MAX_LATE_US: i64 = 5_000_000;
/// Shortest time between a move and the opening.
const LEAD: Duration = Duration::from_millis(500);

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

    /// Moves an event to these times. Returns the status and the answer.
    async fn move_to(&self, event_id: &str, open_time: &str, close_time: &str) -> (u16, Value) {
        let body = json!({"open_time": open_time, "close_time": close_time}).to_string();
        let path = format!("/v1/events/{event_id}:reschedule");
        let answer = self.gateway.post(&path, &self.token, JSON, body).await;
        (answer.status.as_u16(), answer.json)
    }

    async fn send(&self, content_type: &str, body: Vec<u8>) -> (u16, Value) {
        let answer = self.gateway.post("/v1/events", &self.token, content_type, body).await;
        (answer.status.as_u16(), answer.json)
    }

    /// Checks that the event just created has this name, in whatever way it is read.
    async fn assert_named_as(&self, name: &str, created: &Value) {
        let event_id = created["event_id"].as_str().unwrap();
        // With a token: readers without one share an answer for a moment.
        let read = self.gateway.get(&format!("/v1/events/{event_id}"), &self.token).await.json;
        let list = self.gateway.get("/v1/events", &self.token).await.json;
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

/// A mesh whose processes are in one time zone, and whose sessions with the database are in another.
fn in_other_zones(world: &World) -> MeshBuilder {
    let builder = MeshBuilder::default().set_all("TZ", "America/New_York");
    let builder = builder.set(Service::Event, "STAMPEDE_EVENT_RESCHEDULE_LEAD_MS", LEAD.as_millis());
    Service::ALL.into_iter().fold(builder, |builder, service| {
        let url = format!("{}?timezone=%2B09:00", world.service_database_url(service));
        builder.set(service, "STAMPEDE_DATABASE_URL", url)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_clients_are_read_exactly_or_refused() {
    let world = World::prepared().await.unwrap();
    let mesh = in_other_zones(&world).start(&world, Process::all()).await.unwrap();
    let gateway = Visitor::of(mesh.url(Process::Gateway));
    let events = format!("{}?ssl-mode=disabled", world.service_database_url(Service::Event));
    let events = MySqlPool::connect(&events).await.unwrap();
    let operator = Operator { gateway, token: token(&mesh, "operator"), events };
    case_12_texts_come_back_by_every_code_point_or_are_refused(&operator).await;
    case_14_a_number_is_the_whole_one_that_was_sent_or_refused_by_its_field(&operator).await;
    case_15_a_time_is_the_same_instant_or_refused_by_its_field(&operator).await;
    case_15_an_event_opens_at_its_instant_and_is_moved_everywhere_alike(&world, &operator).await;
    raw::case_16_what_is_in_a_body_is_never_taken_for_a_request(&mesh).await;
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
    // Forms that not every reader of times accepts.
    for (field, sent, expected) in [
        ("open_time", "2090-06-01t12:00:00z", "2090-06-01T12:00:00Z"),
        ("open_time", "2090-06-01 12:00:00Z", "2090-06-01T12:00:00Z"),
        ("close_time", "2090-12-31T23:59:60Z", "2090-12-31T23:59:59Z"),
        ("close_time", "2090-06-01T12:00:00.1234567890Z", "2090-06-01T12:00:00.123457Z"),
        // A nanosecond after it opens, in the microseconds that times are kept in.
        ("close_time", "2090-01-01T00:00:00.000000001Z", "2090-01-01T00:00:00.000001Z"),
    ] {
        let answer = operator.create_with(&json!({field: sent})).await;
        assert_read_or_refused(field, sent, instant(expected), &answer);
    }
    // Rounded up it would be in a year that no time is in.
    let last = "9999-12-31T23:59:59.999999999Z";
    let (status, refused) = operator.create_with(&json!({"close_time": last})).await;
    assert_eq!((status, refused["field"].as_str()), (400, Some("close_time")), "case 15: {last}: {refused}");
    // It opened while the request was on its way.
    let just_now = Timestamp::now().minus(Duration::from_millis(1));
    let sent = timestamp(just_now).to_string();
    let answer = operator.create_with(&json!({"open_time": sent})).await;
    assert_read_or_refused("open_time", &sent, timestamp(just_now), &answer);
}

/// Reads a time in the form in which it is answered.
fn instant(text: &str) -> prost_types::Timestamp {
    text.parse::<prost_types::Timestamp>().unwrap_or_else(|error| panic!("{text:?} is no time: {error}"))
}

/// Checks that a time was read as this instant, or refused by its field.
fn assert_read_or_refused(field: &str, sent: &str, expected: prost_types::Timestamp, answer: &(u16, Value)) {
    let (status, json) = answer;
    match (*status, json[field].as_str()) {
        (200, Some(text)) => assert_eq!(instant(text), expected, "case 15: {field} {sent}: {json}"),
        (status, _) => assert_eq!((status, json["field"].as_str()), (400, Some(field)), "case 15: {sent}: {json}"),
    }
}

async fn case_15_an_event_opens_at_its_instant_and_is_moved_everywhere_alike(world: &World, operator: &Operator) {
    tokio::join!(opens_at_its_instant(operator), is_moved_everywhere_alike(world, operator));
}

/// Creates an event that opens soon, by the clock of another zone, and waits until it is open.
async fn opens_at_its_instant(operator: &Operator) {
    let open_time = in_us(OPENS_IN).unwrap();
    let in_tokyo = prost_types::Timestamp { seconds: open_time.seconds + 9 * 3_600, nanos: open_time.nanos };
    let sent = in_tokyo.to_string().replace('Z', "+09:00");
    let (status, created) = operator.create_with(&json!({"open_time": sent})).await;
    assert_eq!(status, 200, "case 15: {sent}: {created}");
    assert_eq!(instant(created["open_time"].as_str().unwrap()), open_time, "case 15: {sent}: {created}");
    let path = format!("/v1/events/{}", created["event_id"].as_str().unwrap());
    let opened = eventually("case 15: the event is open", || async {
        let event = operator.gateway.get(&path, "").await.json;
        event["actual_open_time"].as_str().map(instant)
    })
    .await;
    let late_us = micros(opened) - micros(open_time);
    assert!((0..=MAX_LATE_US).contains(&late_us), "case 15: {sent}: it opened {late_us} us late");
}

/// Moves an event to where it is, into the past, and to two times at once.
async fn is_moved_everywhere_alike(world: &World, operator: &Operator) {
    let (status, event) = operator.create("to be moved").await;
    assert_eq!(status, 200, "case 15: {event}");
    let id = event["event_id"].as_str().unwrap();
    let (open_time, close_time) = (event["open_time"].as_str().unwrap(), event["close_time"].as_str().unwrap());
    let (status, same) = operator.move_to(id, open_time, close_time).await;
    assert_eq!((status, &same["version"]), (200, &event["version"]), "case 15: it is where it was: {same}");
    let past = timestamp(Timestamp::now().minus(Duration::from_millis(1))).to_string();
    let (status, refused) = operator.move_to(id, &past, close_time).await;
    assert_eq!((status, refused["field"].as_str()), (400, Some("open_time")), "case 15: {past}: {refused}");

    let (one, other) = tokio::join!(
        operator.move_to(id, "2089-03-01T09:00:00+09:00", "2090-03-01T00:00:00Z"),
        operator.move_to(id, "2089-04-01T00:00:00-04:00", "2090-04-01T00:00:00Z"),
    );
    for (status, moved) in [&one, &other] {
        assert_eq!(*status, 200, "case 15: of two moves at once: {moved}");
    }
    let times = |event: &Value| ["open_time", "close_time"].map(|field| instant(event[field].as_str().unwrap()));
    let now = operator.gateway.get(&format!("/v1/events/{id}"), &operator.token).await.json;
    assert!(
        [&one.1, &other.1].into_iter().any(|moved| times(moved) == times(&now)),
        "case 15: {one:?} {other:?}: {now}"
    );
    assert_known_to_inventory(world, id.parse().unwrap(), times(&now).map(micros)).await;
}

/// Checks that the ledger and Redis have these times of an event. Both moves were answered, so they have them now.
async fn assert_known_to_inventory(world: &World, event: EventId, times_us: [i64; 2]) {
    let db = world.database(Service::Inventory).await.unwrap();
    let kept = sqlx::query_as("SELECT opens_at_us, closes_at_us FROM stock WHERE event_id = ?").bind(event.as_bytes());
    let kept: (i64, i64) = kept.fetch_one(&mut *db.acquire().await.unwrap()).await.unwrap();
    assert_eq!([kept.0, kept.1], times_us, "case 15: what the ledger has");
    let config = RedisConfig { url: world.redis_url().to_owned(), key_prefix: world.redis_key_prefix() };
    let stock = Stock::new(Redis::connect(config).await.unwrap());
    let shelf = stock.snapshot(event, &[]).await.unwrap().event.unwrap();
    let shelf = [shelf.open_time, shelf.close_time].map(Timestamp::micros);
    assert_eq!(shelf, times_us, "case 15: what Redis has");
}
