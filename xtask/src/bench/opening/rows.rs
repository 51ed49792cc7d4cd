//! Writes events by the thousand: those that open later, and those of one instant, with their stock.

use crate::{chaos::sql::Session, mesh::SCHEMA_PREFIX};
use stampede_vocab::{EventId, ItemId, RequestId, Service, Timestamp, UserId};
use std::fmt::Write;

/// Rows of one statement.
const AT_A_TIME: usize = 500;
/// Rows that one statement generates on the server.
const MADE_AT_A_TIME: u32 = 10_000;
/// A day and an hour, in microseconds.
const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;

const EVENT_COLUMNS: &str = "id, creator_id, request_id, request_fingerprint, name, state, opens_at_us, closes_at_us, \
                             due_at_us, version, created_us, updated_us";
const STOCK_COLUMNS: &str = "item_id, event_id, event_version, opens_at_us, closes_at_us, total_units, \
                             limit_per_buyer, gift_total_units, unit_price_minor, currency";

/// An event and its one item.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub event: EventId,
    pub item: ItemId,
}

/// The table of a service.
pub fn table(service: Service, name: &str) -> String {
    format!("{SCHEMA_PREFIX}{service}.{name}")
}

/// Writes so many events that open from tomorrow on, one a second, with their stock.
pub fn plan_ahead(session: &mut Session, count: u32) -> anyhow::Result<()> {
    let tomorrow = Timestamp::now().micros() + DAY_US;
    let (events, stock) = (table(Service::Event, "events"), table(Service::Inventory, "stock"));
    for from in (0..count).step_by(MADE_AT_A_TIME as usize) {
        let numbers = numbers(from, count);
        let (opens, closes) = (format!("{tomorrow} + n * 1000000"), format!("{tomorrow} + n * 1000000 + {HOUR_US}"));
        session.run(&format!(
            "INSERT INTO {events} ({EVENT_COLUMNS}) SELECT UNHEX(MD5(CONCAT('event', n))), UNHEX(MD5('nobody')), \
             CONCAT('ahead-', n), UNHEX(SHA2(n, 256)), 'Some day', 'SCHEDULED', {opens}, {closes}, {opens}, 1, \
             {tomorrow}, {tomorrow} FROM {numbers}"
        ))?;
        session.run(&format!(
            "INSERT INTO {stock} ({STOCK_COLUMNS}) SELECT UNHEX(MD5(CONCAT('item', n))), \
             UNHEX(MD5(CONCAT('event', n))), 1, {opens}, {closes}, 100, 1, 0, 100, 'EUR' FROM {numbers}"
        ))?;
    }
    Ok(())
}

/// Returns a table expression of the numbers from `from` on, below `end`.
fn numbers(from: u32, end: u32) -> String {
    let digit = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    format!(
        "(SELECT * FROM (SELECT {from} + a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS n \
         FROM {digit} a, {digit} b, {digit} c, {digit} d) made WHERE n < {end}) numbers"
    )
}

/// Writes so many events that open at `due_at`, with their stock, which the reconciler copies to Redis.
pub fn plan_instant(session: &mut Session, count: u32, due_at: Timestamp) -> anyhow::Result<Vec<Planned>> {
    let creator = UserId::random();
    let planned: Vec<Planned> = (0..count).map(|number| plan(creator, number)).collect::<Result<_, _>>()?;
    for some in planned.chunks(AT_A_TIME) {
        insert(session, some, creator, due_at)?;
    }
    Ok(planned)
}

fn plan(creator: UserId, number: u32) -> anyhow::Result<Planned> {
    let event = EventId::derive(creator, &RequestId::parse(&format!("due-{number}"))?);
    Ok(Planned { event, item: ItemId::derive(event, 0) })
}

fn insert(session: &mut Session, planned: &[Planned], creator: UserId, due_at: Timestamp) -> anyhow::Result<()> {
    let (opens, closes, now) = (due_at.micros(), due_at.micros() + HOUR_US, Timestamp::now().micros());
    let creator = hex(creator.uuid().as_bytes());
    let events = rows(planned, |event, _| {
        format!(
            "{event}, {creator}, 'due', UNHEX(SHA2('due', 256)), 'Due', 'SCHEDULED', {opens}, {closes}, {opens}, 1, \
             {now}, {now}"
        )
    });
    let items = rows(planned, |event, item| format!("{item}, {event}, 0, 'A lamp', 100, 'EUR', 1000, 100, NULL, 0"));
    let stock = rows(planned, |event, item| format!("{item}, {event}, 1, {opens}, {closes}, 1000, 100, 0, 100, 'EUR'"));
    let restages = rows(planned, |event, _| format!("{event}, 1"));
    session.run(&format!("INSERT INTO {} ({STOCK_COLUMNS}) VALUES {stock}", table(Service::Inventory, "stock")))?;
    session.run(&format!(
        "INSERT INTO {} (event_id, event_version) VALUES {restages}",
        table(Service::Inventory, "restages")
    ))?;
    session.run(&format!(
        "INSERT INTO {} (id, event_id, position, title, unit_price_minor, currency, total_units, limit_per_buyer, \
         gift_title, gift_total_units) VALUES {items}",
        table(Service::Event, "items")
    ))?;
    session.run(&format!("INSERT INTO {} ({EVENT_COLUMNS}) VALUES {events}", table(Service::Event, "events")))
}

/// A row for each event, made of the ids of the event and of its item.
fn rows(planned: &[Planned], row: impl Fn(String, String) -> String) -> String {
    let row = |one: &Planned| {
        let (event, item) = (hex(one.event.uuid().as_bytes()), hex(one.item.uuid().as_bytes()));
        format!("({})", row(event, item))
    };
    planned.iter().map(row).collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "X'".to_owned();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planned_event_has_ids_of_its_own() {
        let creator = UserId::random();
        let [first, second] = [0, 1].map(|number| plan(creator, number).expect("well formed"));
        assert!(first.event != second.event && first.item != second.item);
        assert_eq!(hex(&[0, 255]), "X'00ff'");
    }
}
