//! Goods: written in the transaction that fulfils their order, and never changed.

use super::ROWS_PER_STATEMENT;
use crate::domain::{Goods, GoodsKind, Order};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement};
use stampede_vocab::{ItemId, Timestamp};
use std::collections::HashMap;
use uuid::Uuid;

#[derive(FromRow)]
struct GoodsRow {
    order_id: Uuid,
    item_id: Uuid,
    kind: String,
    units: i32,
    granted_at_us: i64,
}

impl GoodsRow {
    fn goods(&self) -> Result<Goods, DbError> {
        let kind = match self.kind.as_str() {
            "ITEM" => GoodsKind::Item,
            "GIFT" => GoodsKind::Gift,
            other => {
                let what = format!("goods of order {} are of the kind {other:?}", self.order_id);
                return Err(DbError::inconsistent(what));
            }
        };
        let granted_at = Timestamp::from_micros(self.granted_at_us);
        Ok(Goods { item: ItemId::from_uuid(self.item_id), kind, units: self.units, granted_at })
    }
}

const fn code(kind: GoodsKind) -> &'static str {
    match kind {
        GoodsKind::Item => "ITEM",
        GoodsKind::Gift => "GIFT",
    }
}

/// Writes the goods of orders that become fulfilled.
pub(super) async fn insert(conn: &mut MySqlConnection, orders: &[&Order]) -> Result<(), DbError> {
    let rows: Vec<_> = orders.iter().flat_map(|order| order.goods.iter().map(|goods| (order.id, goods))).collect();
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut insert = Statement::new("INSERT INTO goods (order_id, item_id, kind, units, granted_at_us) ");
        insert.push_values(rows, |mut row, (order, goods)| {
            row.push_bind(order.uuid())
                .push_bind(goods.item.uuid())
                .push_bind(code(goods.kind))
                .push_bind(goods.units)
                .push_bind(goods.granted_at.micros());
        });
        insert.execute(&mut *conn).await?;
    }
    Ok(())
}

/// Returns the goods of these orders, items before gifts.
pub(super) async fn load(conn: &mut MySqlConnection, orders: &[Uuid]) -> Result<HashMap<Uuid, Vec<Goods>>, DbError> {
    let mut by_order = HashMap::<_, Vec<_>>::new();
    if orders.is_empty() {
        return Ok(by_order);
    }
    let mut select = Statement::new(
        "SELECT order_id, item_id, kind, units, granted_at_us FROM goods FORCE INDEX (PRIMARY) WHERE order_id IN ",
    );
    select.push_list(orders);
    select.push(" ORDER BY order_id, kind DESC, item_id");
    let rows: Vec<GoodsRow> = select.fetch_all(conn).await?;
    for row in rows {
        by_order.entry(row.order_id).or_default().push(row.goods()?);
    }
    Ok(by_order)
}
