//! Bad input gets the right reason, names the field, and changes nothing.

use crate::sale::{Client, create, refusal, replica, request, world};
use anyhow::Result;
use stampede_proto::{
    convert::timestamp,
    event::v1::{
        CancelEventRequest, CreateEventRequest, GetEventRequest, Gift, ListEventsRequest, RescheduleEventRequest,
        WatchEventsRequest,
    },
};
use stampede_status::Reason;
use stampede_testkit::as_operator;
use stampede_vocab::Timestamp;
use std::time::Duration;
use tonic::{Code, Status};

const MINUTE: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "evt_0000000000000000000000001a";

/// Makes a good request bad in one place.
type Spoil = fn(&mut CreateEventRequest);

#[rustfmt::skip]
const BAD_EVENTS: [(&str, Spoil); 27] = [
    ("request_id", |r| r.request_id.clear()),
    ("request_id", |r| r.request_id = "x".repeat(65)),
    ("request_id", |r| r.request_id = "4242-4242-4242-4242".to_owned()),
    ("name", |r| r.name.clear()),
    ("name", |r| r.name = "x".repeat(201)),
    ("name", |r| r.name = "Call 4242 4242 4242 4242".to_owned()),
    ("open_time", |r| r.open_time = None),
    ("open_time", |r| r.open_time = Some(timestamp(Timestamp::now().minus(MINUTE)))),
    ("open_time", |r| r.open_time = Some(prost_types::Timestamp { seconds: 0, nanos: -1 })),
    ("open_time", |r| r.open_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })),
    ("close_time", |r| r.close_time = None),
    ("close_time", |r| r.close_time = r.open_time),
    ("items", |r| r.items.clear()),
    ("items", |r| r.items = vec![r.items[0].clone(); 101]),
    ("items[1].title", |r| r.items[1].title.clear()),
    ("items[1].unit_price", |r| r.items[1].unit_price = None),
    ("items[1].unit_price.minor_units", |r| r.items[1].unit_price.as_mut().expect("a price").minor_units = 0),
    ("items[1].unit_price.minor_units", |r| r.items[1].unit_price.as_mut().expect("a price").minor_units = -1),
    ("items[0].unit_price.currency", |r| r.items[0].unit_price.as_mut().expect("a price").currency = "eur".to_owned()),
    ("items[0].unit_price.currency", |r| r.items[0].unit_price.as_mut().expect("a price").currency = "ZZZ".to_owned()),
    ("items[0].unit_price.currency", |r| r.items[0].unit_price.as_mut().expect("a price").currency = "XTS".to_owned()),
    ("items[1].unit_price.currency", |r| r.items[1].unit_price.as_mut().expect("a price").currency = "USD".to_owned()),
    ("items[0].total_units", |r| r.items[0].total_units = 0),
    ("items[0].total_units", |r| r.items[0].total_units = 10_000_001),
    ("items[0].limit_per_buyer", |r| r.items[0].limit_per_buyer = 1_001),
    ("items[0].gift.title", |r| r.items[0].gift = Some(Gift { title: String::new(), total_units: 1 })),
    ("items[0].gift.total_units", |r| r.items[0].gift = Some(Gift { title: "Tea".to_owned(), total_units: 0 })),
];

#[tokio::test]
async fn a_bad_event_is_refused_by_its_field_and_not_created() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    for (field, spoil) in BAD_EVENTS {
        let mut bad = request("sale", MINUTE, MINUTE);
        spoil(&mut bad);
        let refused = client.create_event(as_operator(bad)).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some(field.to_owned())), "{refused}");
    }
    let listed = client.list_events(ListEventsRequest::default()).await?.into_inner();
    assert!(listed.events.is_empty(), "{listed:?}");
    mesh.stop().await
}

async fn get(client: &mut Client, event_id: &str) -> Status {
    client.get_event(GetEventRequest { event_id: event_id.to_owned() }).await.expect_err("no event")
}

async fn cancel(client: &mut Client, event_id: &str) -> Status {
    cancel_with(client, event_id, 0).await
}

async fn cancel_with(client: &mut Client, event_id: &str, paid_orders: i32) -> Status {
    let request = CancelEventRequest { event_id: event_id.to_owned(), paid_orders };
    client.cancel_event(as_operator(request)).await.expect_err("no event")
}

async fn reschedule(client: &mut Client, event_id: &str, opens_in: Duration, lasts: Duration) -> Status {
    let open_time = Timestamp::now().plus(opens_in);
    let (open_time, close_time) = (Some(timestamp(open_time)), Some(timestamp(open_time.plus(lasts))));
    let request =
        RescheduleEventRequest { event_id: event_id.to_owned(), open_time, close_time, expected_version: None };
    client.reschedule_event(as_operator(request)).await.expect_err("no event, or bad times")
}

async fn watch(client: &mut Client, event_ids: Vec<String>) -> Status {
    client.watch_events(WatchEventsRequest { event_ids }).await.expect_err("no event")
}

async fn list(client: &mut Client, page_size: i32, page_token: &str) -> Status {
    let request = ListEventsRequest { page_size, page_token: page_token.to_owned() };
    client.list_events(request).await.expect_err("no page")
}

#[tokio::test]
async fn what_is_malformed_or_unknown_is_refused_by_every_method() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let c = &mut client;
    let unknown = UNKNOWN.to_owned();
    let known = create(c, request("sale", MINUTE, MINUTE)).await?.event_id;
    let table = [
        (Reason::InvalidField, Some("event_id"), get(c, "evt_1").await),
        (Reason::InvalidField, Some("event_id"), get(c, &UNKNOWN.replace("evt", "ord")).await),
        (Reason::EventNotFound, Some("event_id"), get(c, UNKNOWN).await),
        (Reason::InvalidField, Some("event_id"), cancel(c, "").await),
        (Reason::EventNotFound, Some("event_id"), cancel(c, UNKNOWN).await),
        (Reason::InvalidField, Some("event_id"), reschedule(c, "x", MINUTE, MINUTE).await),
        (Reason::InvalidField, Some("open_time"), reschedule(c, &known, Duration::ZERO, MINUTE).await),
        (Reason::InvalidField, Some("paid_orders"), cancel_with(c, &known, 9).await),
        (Reason::InvalidField, Some("close_time"), reschedule(c, UNKNOWN, MINUTE, Duration::ZERO).await),
        (Reason::EventNotFound, Some("event_id"), reschedule(c, UNKNOWN, MINUTE, MINUTE).await),
        (Reason::InvalidField, Some("event_ids"), watch(c, vec![]).await),
        (Reason::InvalidField, Some("event_ids"), watch(c, vec![unknown.clone(); 101]).await),
        (Reason::InvalidField, Some("event_ids[1]"), watch(c, vec![unknown.clone(), "x".to_owned()]).await),
        (Reason::EventNotFound, Some("event_ids[0]"), watch(c, vec![unknown]).await),
        (Reason::InvalidField, Some("page_size"), list(c, -1, "").await),
        (Reason::InvalidPageToken, Some("page_token"), list(c, 0, "orders.1.0000000000000000000000001a").await),
    ];
    for (index, (reason, field, status)) in table.into_iter().enumerate() {
        assert_eq!(refusal(&status), (reason, field.map(str::to_owned)), "row {index}: {status}");
        assert_eq!(status.code(), reason.code(), "row {index}: {status}");
    }
    mesh.stop().await
}
