//! The table `items`.

use crate::domain::{Gift, Item};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement};
use stampede_vocab::{Currency, EventId, ItemId, Money};
use std::collections::HashMap;
use uuid::Uuid;

/// The items of each event, or why one of them cannot be read.
pub type ByEvent = HashMap<EventId, Result<Vec<Item>, DbError>>;

#[derive(FromRow)]
struct ItemRow {
    id: Uuid,
    event_id: Uuid,
    title: String,
    unit_price_minor: i64,
    currency: String,
    total_units: i32,
    limit_per_buyer: i32,
    gift_title: Option<String>,
    gift_total_units: i32,
}

/// Inserts the items of a new event with their positions. There must be at least one.
pub async fn insert(conn: &mut MySqlConnection, event_id: EventId, items: &[Item]) -> Result<(), DbError> {
    let mut query = Statement::new(
        "INSERT INTO items (id, event_id, position, title, unit_price_minor, currency, total_units, limit_per_buyer, \
         gift_title, gift_total_units) ",
    );
    query.push_values((0_u16..).zip(items), |mut row, (position, item)| {
        row.push_bind(item.id.uuid())
            .push_bind(event_id.uuid())
            .push_bind(position)
            .push_bind(&item.title)
            .push_bind(item.unit_price.minor_units)
            .push_bind(item.unit_price.currency.as_str())
            .push_bind(item.total_units)
            .push_bind(item.limit_per_buyer)
            .push_bind(item.gift.as_ref().map(|gift| &gift.title))
            .push_bind(item.gift.as_ref().map_or(0, |gift| gift.total_units));
    });
    query.execute(conn).await?;
    Ok(())
}

/// Returns the items of these events, ordered by position.
pub async fn load(conn: &mut MySqlConnection, events: &[EventId]) -> Result<ByEvent, DbError> {
    let mut by_event = ByEvent::with_capacity(events.len());
    if events.is_empty() {
        return Ok(by_event);
    }
    let mut query = Statement::new(
        "SELECT id, event_id, title, unit_price_minor, currency, total_units, limit_per_buyer, gift_title, \
         gift_total_units FROM items WHERE event_id IN ",
    );
    query.push_list(events.iter().map(EventId::uuid));
    query.push(" ORDER BY event_id, position");
    let rows: Vec<ItemRow> = query.fetch_all(conn).await?;
    for row in rows {
        let items = by_event.entry(EventId::from_uuid(row.event_id)).or_insert_with(|| Ok(Vec::new()));
        match (row.item(), items) {
            (Ok(item), Ok(items)) => items.push(item),
            (Err(error), items) => *items = Err(error),
            (Ok(_), Err(_)) => {}
        }
    }
    Ok(by_event)
}

impl ItemRow {
    fn item(self) -> Result<Item, DbError> {
        let id = ItemId::from_uuid(self.id);
        let currency =
            Currency::stored(&self.currency).map_err(|error| DbError::inconsistent(format!("{id}: {error}")))?;
        Ok(Item {
            id,
            title: self.title,
            unit_price: Money::new(self.unit_price_minor, currency),
            total_units: self.total_units,
            limit_per_buyer: self.limit_per_buyer,
            gift: self.gift_title.map(|title| Gift { title, total_units: self.gift_total_units }),
        })
    }
}
