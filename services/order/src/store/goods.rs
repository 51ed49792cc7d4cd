//! Goods of orders that are stored in many tables. Written for an earlier release, which reads them; this one derives
//! the goods from the lines.

use super::ROWS_PER_STATEMENT;
use crate::domain::{Form, GoodsKind, Order};
use stampede_db::{Statement, Statements};

const fn code(kind: GoodsKind) -> &'static str {
    match kind {
        GoodsKind::Item => "ITEM",
        GoodsKind::Gift => "GIFT",
    }
}

/// Adds the statements that insert the goods of orders that become fulfilled.
pub(super) fn push_insert(statements: &mut Statements, orders: &[&Order]) {
    let in_tables = orders.iter().filter(|order| order.form == Form::Tables);
    let rows: Vec<_> =
        in_tables.flat_map(|order| order.goods().into_iter().map(move |goods| (order.id, goods))).collect();
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut insert = Statement::new("INSERT INTO goods (order_id, item_id, kind, units, granted_at_us) ");
        insert.push_values(rows, |mut row, (order, goods)| {
            row.push_bind(order.uuid())
                .push_bind(goods.item.uuid())
                .push_bind(code(goods.kind))
                .push_bind(goods.units)
                .push_bind(goods.grant_time.micros());
        });
        statements.push(insert);
    }
}
