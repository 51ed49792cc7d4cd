//! Orders of a real order service beside the inventory: placed through it, and looked up where they are written.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::{Order, quick};
use sqlx::AssertSqlSafe;
use stampede_db::Database;
use stampede_proto::order::v1::{
    self as proto, NewOrderLine, PlaceOrderRequest, order_service_client::OrderServiceClient,
};
use stampede_testkit::{MeshBuilder, Service, as_buyer};
use stampede_vocab::ItemId;
use tonic::{Status, transport::Channel};

/// How long an order may take to be written: more than it does on a machine under load, and little to wait for.
const WRITE_LIMIT_MS: u64 = 1_000;

/// A quick mesh whose orders may be written that long, and whose units go back half as long after it.
pub fn with_order() -> MeshBuilder {
    quick()
        .set(Service::Order, "STAMPEDE_ORDER_WRITE_LIMIT_MS", WRITE_LIMIT_MS)
        .set(Service::Inventory, "STAMPEDE_ORDER_WRITE_LIMIT_MS", WRITE_LIMIT_MS)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", WRITE_LIMIT_MS * 3 / 2)
}

/// Places it by the request from which its id is derived.
pub async fn place(
    mut api: OrderServiceClient<Channel>,
    order: Order,
    request_id: String,
) -> Result<proto::Order, Status> {
    let line = |(item, units): &(ItemId, i32)| NewOrderLine { item_id: item.to_string(), units: *units };
    let request = PlaceOrderRequest {
        request_id,
        event_id: order.event_id.to_string(),
        lines: order.lines.iter().map(line).collect(),
        coupon_id: String::new(),
        max_total: None,
    };
    let placed = api.place_order(as_buyer(order.buyer, request)).await?.into_inner();
    placed.order.ok_or_else(|| Status::internal("no order"))
}

/// How many rows of this table have the order in this column.
pub async fn rows(db: &Database, table: &str, column: &str, order: &Order) -> i64 {
    let query = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table} WHERE {column} = ?"));
    let mut conn = db.acquire().await.unwrap();
    sqlx::query_scalar(query).bind(order.order_id.uuid()).fetch_one(&mut *conn).await.unwrap()
}
