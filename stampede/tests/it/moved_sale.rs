//! Sales that are moved and cancelled while no message about them gets through: nothing is sold by their old times.

use crate::sale::{Sale, eur, fresh, in_us, stampede_reason};
use stampede_proto::event::v1::{CancelEventRequest, CreateEventRequest, Event, NewItem, RescheduleEventRequest};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, as_operator, buyer, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

/// Time until the one sale opens: its stock has to be staged before.
const SOON: Duration = Duration::from_millis(1_500);
/// Time until the other would open: it is staged before, and moved in time.
const LATER: Duration = Duration::from_secs(6);
const MUCH_LATER: Duration = Duration::from_secs(600);
/// Least time for which buyers try after it would have opened, and least number of their tries.
const TRIED_FOR: Duration = Duration::from_secs(1);
const TRIES: usize = 5;

async fn announced(mesh: &Mesh, opens_in: Duration) -> Event {
    let item = NewItem {
        title: "a kettle".to_owned(),
        unit_price: eur(1_999),
        total_units: 100,
        limit_per_buyer: 3,
        gift: None,
    };
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a sale".to_owned(),
        open_time: in_us(opens_in),
        close_time: in_us(2 * MUCH_LATER),
        items: vec![item],
    };
    mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap()
}

fn open_time(event: &Event) -> Timestamp {
    let at = event.open_time.unwrap();
    Timestamp::from_micros(at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000)
}

/// Places an order. Returns the reason of its refusal; empty if it is accepted.
async fn refusal(sale: &Sale) -> String {
    sale.place(buyer(), &[(0, 1)], "").await.err().map(|refused| stampede_reason(&refused)).unwrap_or_default()
}

async fn until_refusal(sale: &Sale, reason: &str) {
    eventually("an order is refused, or not, as it is meant", || async {
        (refusal(sale).await == reason).then_some(())
    })
    .await;
}

/// Runs a statement in the schema of event: a relay without a lease sends no message.
async fn run(sale: &Sale, sql: &'static str) {
    let db = sale.world.database(Service::Event).await.unwrap();
    sqlx::query(sql).execute(&mut *db.acquire().await.unwrap()).await.unwrap();
}

/// Returns how many messages about events are not in Kafka.
async fn unsent(sale: &Sale) -> i64 {
    let db = sale.world.database(Service::Event).await.unwrap();
    let sql = "SELECT COUNT(*) FROM outbox JOIN outbox_leases USING (partition_no) WHERE id > floor_id";
    sqlx::query_scalar(sql).fetch_one(&mut *db.acquire().await.unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_or_cancelled_sale_sells_nothing_by_its_old_times_though_no_message_gets_through() {
    let world = World::prepared().await.unwrap();
    let mesh = MeshBuilder::default().set(Service::Event, "STAMPEDE_EVENT_RESCHEDULE_LEAD_MS", 500);
    let mesh = mesh.start(&world, Process::all()).await.unwrap();
    let cancelled = announced(&mesh, SOON).await;
    let mut sale = Sale { world, mesh, event: cancelled.clone() };
    until_refusal(&sale, "").await;
    // Announced last, so that as little as can be has to be done before it would open.
    let moved = announced(&sale.mesh, LATER).await;
    sale.event = moved.clone();
    until_refusal(&sale, "EVENT_NOT_OPEN").await;

    let leases = "UPDATE outbox_leases SET owner = '2-nobody', epoch = epoch + 1, expires_us = expires_us + 600000000";
    run(&sale, leases).await;
    let request = RescheduleEventRequest {
        event_id: moved.event_id.clone(),
        open_time: in_us(MUCH_LATER),
        close_time: in_us(2 * MUCH_LATER),
        expected_version: None,
    };
    sale.mesh.event().reschedule_event(as_operator(request)).await.unwrap();
    let request = CancelEventRequest { event_id: cancelled.event_id.clone(), paid_orders: 0 };
    sale.mesh.event().cancel_event(as_operator(request)).await.unwrap();
    sale.event = cancelled;
    assert_eq!(refusal(&sale).await, "EVENT_CLOSED", "it was answered, so nothing is sold any more");

    let (opened, mut tries) = (open_time(&moved), 0);
    sale.event = moved;
    while tries < TRIES || Timestamp::now() < opened.plus(TRIED_FOR) {
        tries += usize::from(Timestamp::now() >= opened);
        assert_eq!(refusal(&sale).await, "EVENT_NOT_OPEN", "it was answered, so it does not open at its old time");
        sleep(TRIED_FOR / 50).await;
    }
    let unsent = unsent(&sale).await;
    assert!(unsent >= 2, "nobody has heard of it by a message: {unsent} are unsent");

    run(&sale, "UPDATE outbox_leases SET expires_us = 0").await;
    sale.audit();
    sale.mesh.stop().await.unwrap();
}
