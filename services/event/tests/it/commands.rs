//! The commands of operators, and the state that repeats and refusals leave behind.

use crate::sale::{
    Client, LEAD, create, get, in_time, messages, micros, reaches, refusal, replica, request, retime, whole_sale, world,
};
use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use stampede_db::Database;
use stampede_proto::{
    convert::timestamp,
    event::v1::{CancelEventRequest, Event, EventState, ListEventsRequest, PaidOrders, RescheduleEventRequest},
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, as_buyer, as_operator, buyer, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

const MINUTE: Duration = Duration::from_secs(60);

async fn reschedule(client: &mut Client, event_id: &str, opens_in: Duration) -> Result<Event, Status> {
    reschedule_if(client, event_id, opens_in, None).await
}

async fn reschedule_if(
    client: &mut Client,
    event_id: &str,
    opens_in: Duration,
    expected_version: Option<i64>,
) -> Result<Event, Status> {
    let open_time = Timestamp::now().plus(opens_in);
    let request = RescheduleEventRequest {
        event_id: event_id.to_owned(),
        open_time: Some(timestamp(open_time)),
        close_time: Some(timestamp(open_time.plus(MINUTE))),
        expected_version,
    };
    Ok(client.reschedule_event(as_operator(request)).await?.into_inner().event.unwrap_or_default())
}

async fn cancel(client: &mut Client, event_id: &str) -> Result<Event, Status> {
    let request = CancelEventRequest { event_id: event_id.to_owned(), paid_orders: 0 };
    Ok(client.cancel_event(as_operator(request)).await?.into_inner().event.unwrap_or_default())
}

#[tokio::test]
async fn a_repeated_request_returns_the_event_created_first() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let request = request("sale", MINUTE, MINUTE);

    let at_once = (0..8).map(|_| {
        let (mut client, request) = (mesh.event(), request.clone());
        async move { create(&mut client, request).await }
    });
    let events = try_join_all(at_once).await?;
    assert!(events.iter().all(|event| *event == events[0]), "{events:?}");
    assert_eq!(get(&mut mesh.event(), &events[0].event_id).await?, events[0]);
    assert_eq!(messages(&world.database(Service::Event).await?, &events[0].event_id).await?.len(), 1);

    let mut other = request;
    other.items[1].total_units += 1;
    let refused = mesh.event().create_event(as_operator(other)).await.expect_err("another body");
    assert_eq!(refusal(&refused), (Reason::RequestIdReused, Some("request_id".to_owned())));
    mesh.stop().await
}

/// How many events are being inserted.
async fn inserting(db: &Database) -> Result<i64> {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND info LIKE 'INSERT INTO events%'";
    Ok(sqlx::query_scalar(waiting).fetch_one(&mut *db.acquire().await?).await?)
}

#[tokio::test]
async fn a_request_that_is_sent_twice_as_its_last_moment_passes_is_answered_alike() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let db = world.database(Service::Event).await?;
    let mut lock = db.acquire().await?;
    sqlx::raw_sql("LOCK TABLES events READ").execute(&mut *lock).await?;

    let request = request("twice", Duration::ZERO, MINUTE);
    let send = || {
        let (mut client, request) = (mesh.event(), request.clone());
        tokio::spawn(async move { client.create_event(as_operator(request)).await })
    };
    let first = send();
    eventually("the first is inserted", || async { (inserting(&db).await.ok()? == 1).then_some(()) }).await;
    // More than a request may be in flight.
    sleep(Duration::from_millis(1_100)).await;
    let second = send();
    eventually("the second is answered or inserted", || async {
        (second.is_finished() || inserting(&db).await.ok()? == 2).then_some(())
    })
    .await;
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *lock).await?;

    let (first, second) = (first.await?, second.await?);
    assert_eq!(first.is_ok(), second.is_ok(), "one was refused, and the other was not: {first:?}, {second:?}");
    mesh.stop().await
}

#[tokio::test]
async fn an_event_is_moved_while_there_is_time_and_opens_at_its_new_time() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = create(&mut client, request("sale", MINUTE, MINUTE)).await?;

    let moved = in_time(async |_: u32| -> Result<Result<Event, String>> {
        match reschedule(&mut client, &created.event_id, LEAD * 2).await {
            // Which changes nothing: the new time had come too near on the way.
            Err(status) if refusal(&status).0 == Reason::InvalidField => Ok(Err(status.to_string())),
            answer => Ok(Ok(answer?)),
        }
    })
    .await?;
    assert_eq!((moved.version, moved.state(), moved.items.len()), (2, EventState::Scheduled, 2));
    let open = reaches(&client, &created.event_id, EventState::Open).await;
    assert_eq!(open.open_time, moved.open_time);
    assert!(micros(open.actual_open_time.as_ref())? >= micros(moved.open_time.as_ref())?);

    let refused = reschedule(&mut client, &created.event_id, MINUTE).await.expect_err("it is open");
    assert_eq!(refusal(&refused).0, Reason::EventNotScheduled);
    let published = messages(&world.database(Service::Event).await?, &created.event_id).await?;
    let published: Vec<_> = published.iter().map(|(name, version)| (name.as_str(), *version)).collect();
    let scheduled = "stampede.message.v1.EventScheduled";
    assert_eq!(published, [(scheduled, 1), (scheduled, 2), ("stampede.message.v1.EventOpened", 3)]);
    mesh.stop().await
}

#[tokio::test]
async fn of_two_operators_who_saw_the_same_version_one_moves_the_event() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let created = create(&mut mesh.event(), request("sale", MINUTE, MINUTE)).await?;

    let at_once = [2_u32, 3].map(|minutes| {
        let (mut client, id, seen) = (mesh.event(), created.event_id.clone(), created.version);
        async move { reschedule_if(&mut client, &id, minutes * MINUTE, Some(seen)).await }
    });
    let (moved, refused): (Vec<_>, Vec<_>) = join_all(at_once).await.into_iter().partition(Result::is_ok);
    let moved: Vec<_> = moved.into_iter().flatten().collect();
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
    assert_eq!((moved.len(), refused.len()), (1, 1), "{moved:?} {refused:?}");
    assert_eq!(get(&mut mesh.event(), &created.event_id).await?, moved[0]);

    let problem = Problem::from_status(&refused[0]);
    assert_eq!((problem.reason(), refused[0].code()), (Reason::VersionMismatch, Code::Aborted));
    assert_eq!(problem.metadata()["version"], moved[0].version.to_string());
    let seen_again = reschedule_if(&mut mesh.event(), &created.event_id, MINUTE, Some(moved[0].version)).await?;
    assert_eq!(seen_again.version, moved[0].version + 1);
    mesh.stop().await
}

#[tokio::test]
async fn an_event_about_to_open_is_not_moved() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = in_time(async |round: u32| -> Result<Result<Event, String>> {
        let created = create(&mut client, request(&format!("sale-{round}"), LEAD * 9 / 10, MINUTE)).await?;
        let refused = reschedule(&mut client, &created.event_id, MINUTE).await.expect_err("too late");
        match refusal(&refused).0 {
            Reason::RescheduleTooLate => Ok(Ok(created)),
            Reason::EventNotScheduled => Ok(Err("it had opened before".to_owned())),
            _ => Err(refused.into()),
        }
    })
    .await?;
    let open = reaches(&client, &created.event_id, EventState::Open).await;
    assert_eq!((open.open_time, open.version), (created.open_time, 2));
    mesh.stop().await
}

#[tokio::test]
async fn a_cancelled_event_stays_cancelled_and_never_opens() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let (created, cancelled) = in_time(async |round: u32| -> Result<Result<(Event, Event), String>> {
        let created = create(&mut client, request(&format!("cancelled-{round}"), LEAD, MINUTE)).await?;
        let cancelled = cancel(&mut client, &created.event_id).await?;
        let had_opened = cancelled.actual_open_time.is_some();
        Ok(if had_opened { Err("it had opened before".to_owned()) } else { Ok((created, cancelled)) })
    })
    .await?;
    let marker = create(&mut client, request("marker", LEAD, LEAD / 10)).await?;
    assert_eq!((cancelled.state(), cancelled.version), (EventState::Cancelled, 2));
    assert!(cancelled.cancel_time.is_some());
    assert_eq!((cancelled.actual_open_time, cancelled.actual_close_time), (None, None));
    assert_eq!(cancel(&mut client, &created.event_id).await?, cancelled);

    // The marker was to open no earlier, so the cancelled one had its chance.
    reaches(&client, &marker.event_id, EventState::Closed).await;
    assert_eq!(get(&mut client, &created.event_id).await?, cancelled);
    mesh.stop().await
}

#[tokio::test]
async fn an_event_that_has_closed_is_cancelled_once_however_often_that_is_asked_for() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let (mut client, db) = (mesh.event(), world.database(Service::Event).await?);
    let event_id = create(&mut client, request("sale", MINUTE, MINUTE)).await?.event_id;
    let now = Timestamp::now();
    retime(&db, &event_id, now.minus(MINUTE), now).await?;
    let closed = reaches(&client, &event_id, EventState::Closed).await;

    let at_once = (0..8).map(|_| {
        let (mut client, event_id) = (mesh.event(), event_id.clone());
        async move { cancel(&mut client, &event_id).await }
    });
    let answers = try_join_all(at_once).await?;
    let cancelled = &answers[0];
    assert!(answers.iter().all(|event| event == cancelled), "{answers:?}");
    assert_eq!((cancelled.state(), cancelled.version), (EventState::Cancelled, closed.version + 1));
    assert_eq!(cancelled.actual_open_time, closed.actual_open_time);
    assert_eq!(cancelled.actual_close_time, closed.actual_close_time, "when it did close");
    assert!(closed.cancel_time.is_none());
    assert!(micros(cancelled.cancel_time.as_ref())? >= now.micros(), "when it was cancelled");

    let refund = CancelEventRequest { event_id: event_id.clone(), paid_orders: PaidOrders::Refund.into() };
    let refunded = client.cancel_event(as_operator(refund)).await?.into_inner().event.context("an event")?;
    assert_eq!((refunded.paid_orders(), refunded.version), (PaidOrders::Refund, cancelled.version + 1));
    assert_eq!(refunded.cancel_time, cancelled.cancel_time, "it was cancelled once");
    assert_eq!(refunded.actual_close_time, closed.actual_close_time, "and had closed once");
    let cancellations = [4, 5].map(|version| ("stampede.message.v1.EventCancelled".to_owned(), version));
    let expected: Vec<_> = whole_sale().into_iter().chain(cancellations).collect();
    assert_eq!(messages(&db, &event_id).await?, expected);
    mesh.stop().await
}

#[tokio::test]
async fn events_are_listed_newest_first_page_by_page() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let mut created = Vec::new();
    for n in 0..5 {
        created.push(create(&mut client, request(&format!("sale-{n}"), MINUTE, MINUTE)).await?);
    }
    created.reverse();

    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = client.list_events(ListEventsRequest { page_size: 2, page_token }).await?.into_inner();
        assert!(page.events.len() <= 2);
        listed.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, created);
    mesh.stop().await
}

#[tokio::test]
async fn messages_of_a_command_carry_the_operators_trace() -> Result<()> {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-";
    fn traced<T>(message: T) -> Request<T> {
        let mut request = as_operator(message);
        let parent = AsciiMetadataValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        request.metadata_mut().insert("traceparent", parent);
        request
    }
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = client.create_event(traced(request("sale", MINUTE, MINUTE))).await?.into_inner();
    let event_id = created.event.context("an event")?.event_id;
    let open_time = Timestamp::now().plus(2 * MINUTE);
    let moved = RescheduleEventRequest {
        event_id: event_id.clone(),
        open_time: Some(timestamp(open_time)),
        close_time: Some(timestamp(open_time.plus(MINUTE))),
        expected_version: None,
    };
    client.reschedule_event(traced(moved)).await?;
    client.cancel_event(traced(CancelEventRequest { event_id: event_id.clone(), paid_orders: 0 })).await?;

    let mut conn = world.database(Service::Event).await?.acquire().await?;
    let query = "SELECT traceparent FROM outbox WHERE aggregateid = ? ORDER BY id";
    let published: Vec<Option<String>> = sqlx::query_scalar(query).bind(&event_id).fetch_all(&mut *conn).await?;
    assert_eq!(published.len(), 3, "{published:?}");
    assert!(published.iter().flatten().filter(|parent| parent.starts_with(TRACE)).count() == 3, "{published:?}");
    mesh.stop().await
}

#[tokio::test]
async fn commands_are_for_operators() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let request = request("sale", MINUTE, MINUTE);

    let refused = client.create_event(request.clone()).await.expect_err("nobody");
    assert_eq!(refusal(&refused).0, Reason::Unauthenticated);
    let refused = client.create_event(as_buyer(buyer(), request)).await.expect_err("a buyer");
    assert_eq!(refusal(&refused).0, Reason::PermissionDenied);
    let listed = client.list_events(ListEventsRequest::default()).await.context("anybody may list")?;
    assert!(listed.into_inner().events.is_empty());
    mesh.stop().await
}
