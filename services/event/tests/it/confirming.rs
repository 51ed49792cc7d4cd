//! New times and cancellations are answered once inventory knows them.

use crate::sale::{Client, create, get, messages, micros, refusal, replica, request, world};
use anyhow::Result;
use stampede_proto::event::v1::{
    CancelEventRequest, CreateEventRequest, Event, EventState, PaidOrders, RescheduleEventRequest,
};
use stampede_status::Reason;
use stampede_testkit::{Service, World, as_operator, eventually};
use stampede_vocab::EventId;
use std::time::Duration;
use tonic::Status;

const MINUTE: Duration = Duration::from_secs(60);

/// What inventory knows of the event: its version, and when it opens and closes.
async fn known(world: &World, event: &Event) -> Result<Vec<(i64, i64, i64)>> {
    let id: EventId = event.event_id.parse()?;
    let query = "SELECT DISTINCT event_version, opens_at_us, closes_at_us FROM stock WHERE event_id = ?";
    let mut conn = world.database(Service::Inventory).await?.acquire().await?;
    Ok(sqlx::query_as(query).bind(id.uuid()).fetch_all(&mut *conn).await?)
}

async fn cancel(client: &mut Client, event: &Event, paid_orders: PaidOrders) -> Result<Event, Status> {
    let request = CancelEventRequest { event_id: event.event_id.clone(), paid_orders: paid_orders.into() };
    Ok(client.cancel_event(as_operator(request)).await?.into_inner().event.unwrap_or_default())
}

/// Moves the event to the times of another request.
async fn reschedule(client: &mut Client, event: &Event, to: &CreateEventRequest) -> Result<Event, Status> {
    let request = RescheduleEventRequest {
        event_id: event.event_id.clone(),
        open_time: to.open_time,
        close_time: to.close_time,
        expected_version: Some(event.version),
    };
    Ok(client.reschedule_event(as_operator(request)).await?.into_inner().event.unwrap_or_default())
}

#[tokio::test]
async fn inventory_has_the_new_window_when_the_operator_is_answered() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = create(&mut client, request("sale", MINUTE, MINUTE)).await?;

    let moved = reschedule(&mut client, &created, &request("", 10 * MINUTE, MINUTE)).await?;
    let window = (micros(moved.open_time.as_ref())?, micros(moved.close_time.as_ref())?);
    assert_eq!(known(&world, &created).await?, [(2, window.0, window.1)]);

    let cancelled = cancel(&mut client, &created, PaidOrders::Keep).await?;
    let ended = micros(cancelled.cancel_time.as_ref())?;
    assert_eq!(known(&world, &created).await?, [(3, window.0, ended)]);
    mesh.stop().await
}

#[tokio::test]
async fn without_an_answer_of_inventory_the_operator_gets_a_problem_and_repeats() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = create(&mut client, request("sale", MINUTE, MINUTE)).await?;
    let later = request("", 10 * MINUTE, MINUTE);

    mesh.freeze(Service::Inventory, 0)?;
    let unconfirmed = reschedule(&mut client, &created, &later).await.expect_err("inventory stands still");
    assert_eq!(refusal(&unconfirmed).0, Reason::Unavailable);
    let moved = get(&mut client, &created.event_id).await?;
    assert_eq!((moved.version, &moved.open_time), (2, &later.open_time));

    mesh.thaw(Service::Inventory, 0)?;
    let repeated = eventually("the repeat is answered", || {
        let (mut client, created, later) = (client.clone(), created.clone(), later.clone());
        async move { reschedule(&mut client, &created, &later).await.ok() }
    })
    .await;
    assert_eq!(repeated, moved, "a repeat changes nothing");
    assert_eq!(known(&world, &created).await?.first().map(|known| known.0), Some(2));
    mesh.stop().await
}

#[tokio::test]
async fn refunds_may_be_asked_for_after_the_cancellation_and_are_not_taken_back() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let created = create(&mut client, request("sale", MINUTE, MINUTE)).await?;
    assert_eq!(created.paid_orders(), PaidOrders::Unspecified);

    let kept = cancel(&mut client, &created, PaidOrders::Unspecified).await?;
    assert_eq!((kept.state(), kept.paid_orders(), kept.version), (EventState::Cancelled, PaidOrders::Keep, 2));
    let refunded = cancel(&mut client, &created, PaidOrders::Refund).await?;
    assert_eq!((refunded.paid_orders(), refunded.version), (PaidOrders::Refund, 3));
    assert_eq!((refunded.cancel_time, kept.actual_close_time), (kept.cancel_time, None));
    for again in [PaidOrders::Keep, PaidOrders::Refund] {
        assert_eq!(cancel(&mut client, &created, again).await?, refunded);
    }
    let published = messages(&world.database(Service::Event).await?, &created.event_id).await?;
    let cancelled = published.iter().filter(|(name, _)| name.ends_with(".EventCancelled"));
    assert_eq!(cancelled.map(|(_, version)| *version).collect::<Vec<_>>(), [2, 3]);
    mesh.stop().await
}
