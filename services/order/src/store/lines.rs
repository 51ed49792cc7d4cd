//! Lines of orders that are stored in many tables. Inserted with the order, and updated only if a gift is gone when the
//! order is paid late.

use super::ROWS_PER_STATEMENT;
use crate::domain::{Form, Line, Order};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{Currency, ItemId, Money, OrderId, Quantity};
use std::collections::HashMap;
use uuid::Uuid;

/// A line as it is stored; its currency is that of the order.
#[derive(FromRow)]
pub(super) struct LineRow {
    order_id: Uuid,
    item_id: Uuid,
    units: i32,
    unit_price_minor: i64,
    gift_units: i32,
    title: Option<String>,
    gift_title: Option<String>,
}

impl LineRow {
    pub(super) fn line(&self, currency: Currency) -> Result<Line, DbError> {
        let inconsistent = |error| DbError::inconsistent(format!("a line of order {}: {error}", self.order_id));
        Ok(Line {
            item: ItemId::from_uuid(self.item_id),
            units: Quantity::new(self.units.into()).map_err(inconsistent)?,
            unit_price: Money::new(self.unit_price_minor, currency),
            gift_units: self.gift_units,
            title: self.title.as_deref().unwrap_or_default().into(),
            gift_title: self.gift_title.as_deref().unwrap_or_default().into(),
        })
    }
}

/// Adds the statements that insert the lines of new orders, for those that do not have them in their row.
pub(super) fn push_insert(statements: &mut Statements, orders: &[&Order]) {
    let numbered = |order: &&Order| {
        let id = order.id.uuid();
        order.lines.clone().into_iter().zip(0_i16..).map(move |(line, number)| (id, number, line))
    };
    let rows: Vec<_> = orders.iter().filter(|order| order.form == Form::Tables).flat_map(numbered).collect();
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut insert = Statement::new(
            "INSERT INTO order_lines (order_id, line_no, item_id, units, unit_price_minor, gift_units, title, \
             gift_title) ",
        );
        insert.push_values(rows, |mut row, (order, number, line)| {
            row.push_bind(order)
                .push_bind(number)
                .push_bind(line.item.uuid())
                .push_bind(line.units.get())
                .push_bind(line.unit_price.minor_units)
                .push_bind(line.gift_units)
                .push_bind(&*line.title)
                .push_bind(&*line.gift_title);
        });
        statements.push_expecting(insert, "writing lines", rows.len());
    }
}

/// Adds the statements that update the gifts of lines. Rare, so one statement a line.
pub(super) fn push_gifts(statements: &mut Statements, order: OrderId, gifts: &[(ItemId, i32)]) {
    for (item, gift_units) in gifts {
        let mut update = Statement::new("UPDATE order_lines SET gift_units = ");
        update.push_bind(gift_units).push(" WHERE order_id = ").push_bind(order.uuid());
        update.push(" AND item_id = ").push_bind(item.uuid());
        statements.push(update);
    }
}

/// Returns the lines of these orders, by order, in line order.
pub(super) async fn load(conn: &mut MySqlConnection, orders: &[Uuid]) -> Result<HashMap<Uuid, Vec<LineRow>>, DbError> {
    let mut by_order = HashMap::<_, Vec<_>>::new();
    if orders.is_empty() {
        return Ok(by_order);
    }
    let mut select = Statement::new(
        "SELECT order_id, item_id, units, unit_price_minor, gift_units, title, gift_title \
         FROM order_lines FORCE INDEX (PRIMARY) WHERE order_id IN ",
    );
    select.push_list(orders);
    select.push(" ORDER BY order_id, line_no");
    let rows: Vec<LineRow> = select.fetch_all(conn).await?;
    for row in rows {
        by_order.entry(row.order_id).or_default().push(row);
    }
    Ok(by_order)
}
