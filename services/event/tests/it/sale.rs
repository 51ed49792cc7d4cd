//! Fixtures of the tests: an event that opens soon, and the messages and rows that it leaves.

use anyhow::{Context, Result, bail, ensure};
use sqlx::AssertSqlSafe;
use stampede_db::Database;
use stampede_proto::{
    convert::timestamp,
    event::v1::{
        CreateEventRequest, Event, EventState, GetEventRequest, Gift, NewItem, event_service_client::EventServiceClient,
    },
    r#type::v1::Money,
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Mesh, MeshBuilder, Service, World, as_operator, eventually};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;
use tonic::{Status, transport::Channel};

/// Least time between a reschedule and an opening, shorter than in production so that tests are.
pub const LEAD: Duration = Duration::from_millis(1_000);

/// How often a play may be late: the machine may stand still for seconds, which says nothing of the service.
const ROUNDS: u32 = 3;

/// The service, and the one that confirms what it changes.
pub const SERVICES: [Service; 2] = [Service::Event, Service::Inventory];

pub type Client = EventServiceClient<Channel>;

/// A world with all that the event service needs.
pub async fn world() -> Result<World> {
    let world = World::new()?;
    world.schema(Service::Event).await?;
    world.schema(Service::Inventory).await?;
    world.create_topics().await?;
    Ok(world)
}

/// One replica in the world, with the defaults but for the lead.
pub async fn replica(world: &World) -> Result<Mesh> {
    settings().start(world, SERVICES).await
}

/// A replica whose sweep reads the database only once a minute.
pub async fn replica_without_sweep(world: &World) -> Result<Mesh> {
    settings().set(Service::Event, "STAMPEDE_EVENT_SWEEP_INTERVAL_MS", 60_000).start(world, SERVICES).await
}

/// A replica on a machine whose clock is wrong by so much: ahead, or behind if it is negative.
pub async fn replica_wrong_by(world: &World, ms: i64) -> Result<Mesh> {
    settings().set(Service::Event, "STAMPEDE_CLOCK_WRONG_BY_MS", ms).start(world, [Service::Event]).await
}

/// The defaults but for the lead.
pub fn settings() -> MeshBuilder {
    MeshBuilder::default().set(Service::Event, "STAMPEDE_EVENT_RESCHEDULE_LEAD_MS", LEAD.as_millis())
}

/// Plays rounds until one was in time, three at most. A round that was late says how. Where the service is at fault,
/// each is late.
pub async fn in_time<T>(mut play: impl AsyncFnMut(u32) -> Result<Result<T, String>>) -> Result<T> {
    let mut late = String::new();
    for round in 1..=ROUNDS {
        match play(round).await? {
            Ok(done) => return Ok(done),
            Err(how) => late = how,
        }
    }
    bail!("late in each of {ROUNDS} rounds: {late}")
}

/// Gives an event other times by SQL, as if it had been created with these: also times that are past.
pub async fn retime(db: &Database, event_id: &str, open_time: Timestamp, close_time: Timestamp) -> Result<()> {
    let id: EventId = event_id.parse()?;
    let sql = "UPDATE events SET due_at_us = IF(state = 'SCHEDULED', ?, ?), opens_at_us = ?, closes_at_us = ? \
               WHERE id = ? AND state IN ('SCHEDULED', 'OPEN')";
    let (opens_at_us, closes_at_us) = (open_time.micros(), close_time.micros());
    let changed = sqlx::query(sql)
        .bind(opens_at_us)
        .bind(closes_at_us)
        .bind(opens_at_us)
        .bind(closes_at_us)
        .bind(id.uuid())
        .execute(&mut *db.acquire().await?)
        .await?
        .rows_affected();
    ensure!(changed == 1, "{event_id} has ended");
    Ok(())
}

/// A request for an event that opens in `opens_in` and is open for `lasts`.
pub fn request(request_id: &str, opens_in: Duration, lasts: Duration) -> CreateEventRequest {
    let open_time = Timestamp::now().plus(opens_in);
    CreateEventRequest {
        request_id: request_id.to_owned(),
        name: "Midnight sale".to_owned(),
        open_time: Some(timestamp(open_time)),
        close_time: Some(timestamp(open_time.plus(lasts))),
        items: vec![item("Lamp", None), item("Kettle", Some(Gift { title: "Tea".to_owned(), total_units: 5 }))],
    }
}

fn item(title: &str, gift: Option<Gift>) -> NewItem {
    let unit_price = Some(Money { minor_units: 1_999, currency: "EUR".to_owned() });
    NewItem { title: title.to_owned(), unit_price, total_units: 100, limit_per_buyer: 2, gift }
}

/// Writes so many events that open in a year.
pub async fn plan_next_year(world: &World, count: u32) -> Result<()> {
    let open_time = Timestamp::now().plus(Duration::from_secs(365 * 86_400)).micros();
    let digit = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let sql = format!(
        "INSERT INTO events (id, creator_id, request_id, request_fingerprint, name, state, opens_at_us, closes_at_us, \
         due_at_us, version, created_us, updated_us) SELECT UNHEX(MD5(n)), UNHEX(MD5('nobody')), CONCAT('e', n), \
         UNHEX(SHA2(n, 256)), 'Next year', 'SCHEDULED', {open_time}, {open_time} + 1000000, {open_time}, 1, 1, 1 \
         FROM (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS n FROM {digit} a, {digit} b, {digit} c, {digit} d) \
         numbers WHERE n < {count}"
    );
    let db = world.database(Service::Event).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db.acquire().await?).await?;
    Ok(())
}

pub async fn create(client: &mut Client, request: CreateEventRequest) -> Result<Event> {
    client.create_event(as_operator(request)).await?.into_inner().event.context("an event")
}

/// Reads it.
pub async fn get(client: &mut Client, event_id: &str) -> Result<Event> {
    let request = GetEventRequest { event_id: event_id.to_owned() };
    client.get_event(request).await?.into_inner().event.context("an event")
}

/// Waits until the event is in `state`.
pub async fn reaches(client: &Client, event_id: &str, state: EventState) -> Event {
    eventually(&format!("{event_id} is {state:?}"), || {
        let mut client = client.clone();
        async move { get(&mut client, event_id).await.ok().filter(|event| event.state() == state) }
    })
    .await
}

/// The messages that the service has written about the event, in their order: type and version.
pub async fn messages(db: &Database, event_id: &str) -> Result<Vec<(String, i64)>> {
    let mut conn = db.acquire().await?;
    let query = "SELECT type, aggregate_version FROM outbox WHERE aggregateid = ? ORDER BY id";
    Ok(sqlx::query_as(query).bind(event_id).fetch_all(&mut *conn).await?)
}

/// Returns the [`messages`] of a sale that ran as planned.
pub fn whole_sale() -> Vec<(String, i64)> {
    let names = ["EventScheduled", "EventOpened", "EventClosed"];
    names.iter().zip(1..).map(|(name, version)| (format!("stampede.message.v1.{name}"), version)).collect()
}

/// How late it opened, in microseconds; negative if it was early.
pub fn late_us(event: &Event) -> Result<i64> {
    Ok(micros(event.actual_open_time.as_ref())? - micros(event.open_time.as_ref())?)
}

/// The reason and the field of a refusal.
pub fn refusal(status: &Status) -> (Reason, Option<String>) {
    let problem = Problem::from_status(status);
    (problem.reason(), problem.field_path().map(str::to_owned))
}

/// Microseconds of an instant that must be set.
pub fn micros(time: Option<&prost_types::Timestamp>) -> Result<i64> {
    let time = time.context("a time")?;
    Ok(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000)
}
