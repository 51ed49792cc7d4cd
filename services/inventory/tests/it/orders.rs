//! Orders of a real order service beside the inventory: placed through it, and looked up where they are written.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::{Order, Sale, quick};
use sqlx::AssertSqlSafe;
use stampede_db::Database;
use stampede_proto::{
    inventory::v1::{ReleaseRequest, ReservationRef},
    order::v1::{self as proto, NewOrderLine, PlaceOrderRequest, order_service_client::OrderServiceClient},
};
use stampede_testkit::{MeshBuilder, Service, as_buyer, as_order_service};
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

/// Takes back what was asked for the order by requests whose answers were lost, after the last one that was answered.
/// Returns of how many orders the units went back. Fails if what was taken back is still there.
pub async fn take_back_unanswered(
    sale: &Sale,
    order: &Order,
    taken_back: Option<prost_types::Timestamp>,
) -> Result<i32, String> {
    let query = "SELECT asked_at_us FROM reservations WHERE order_id = ?";
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let asked: Vec<i64> = sqlx::query_scalar(query).bind(order.order_id.uuid()).fetch_all(&mut *conn).await.unwrap();
    drop(conn);
    let reference = |asked_at_us: i64| {
        let (seconds, micros) = (asked_at_us / 1_000_000, asked_at_us % 1_000_000);
        let request_time = prost_types::Timestamp { seconds, nanos: i32::try_from(micros * 1_000).unwrap() };
        let (event_id, order_id) = (order.event_id.to_string(), order.order_id.to_string());
        ReservationRef { event_id, order_id, request_time: Some(request_time) }
    };
    let reservations: Vec<ReservationRef> = asked.into_iter().map(reference).collect();
    if reservations.iter().any(|left| left.request_time == taken_back) {
        return Err("a request that was taken back is still there".into());
    }
    if reservations.is_empty() {
        return Ok(0);
    }
    let request = as_order_service(ReleaseRequest { reservations });
    Ok(sale.api().release(request).await.unwrap().into_inner().released)
}
