//! One event with its stock, in a world of its own, and the other services' voices.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::runs::reserve_once_there_is_room;
use prost::Message;
use stampede_db::Database;
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig};
use stampede_proto::{
    inventory::v1::{
        self as proto, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
    },
    message::v1::{self as messages, StockRejectReason},
    r#type::v1::Money,
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Mesh, MeshBuilder, OwnCluster, OwnRedis, Service, World, as_operator, buyer, eventually};
use stampede_vocab::{EventId, ItemId, OrderId, RequestId, Timestamp, UserId};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

/// A service that is not running here and whose messages are sent all the same, through its own outbox and relay.
pub struct Voice {
    db: Database,
    outbox: Outbox,
    stop: CancellationToken,
}

impl Voice {
    async fn of(world: &World, service: Service) -> Self {
        let db = world.schema(service).await.unwrap();
        let config = RelayConfig::new(world.brokers(), world.topic_prefix(), service);
        let (outbox, relay) = Relay::new(config, db.clone()).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        Self { db, outbox, stop }
    }

    async fn says(&self, key: String, messages: &[(&'static str, Vec<u8>)]) {
        let row = |(version, (message_type, payload)): (i64, &(&'static str, Vec<u8>))| OutboxMessage {
            aggregate_type: "test",
            aggregate_id: key.clone(),
            aggregate_version: version,
            message_type: (*message_type).to_owned(),
            payload: payload.clone(),
            traceparent: None,
        };
        let rows: Vec<_> = (1..).zip(messages).map(row).collect();
        stampede_outbox::append(&mut self.db.acquire().await.unwrap(), &rows).await.unwrap();
        self.outbox.wake();
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One event: item 0 with 5 units, two a buyer and 2 gifts; item 1 with 3 units, one a buyer.
pub struct Sale {
    pub mesh: Mesh,
    pub world: World,
    pub event_id: EventId,
    pub inventory_db: Database,
    orders: Voice,
    events: Voice,
}

impl Sale {
    /// An open event whose stock is staged.
    pub async fn open() -> Self {
        let sale = Self::unstaged(&[]).await;
        sale.stage().await;
        sale
    }

    /// An open event whose stock is staged on this Redis.
    pub async fn on_redis(redis: &OwnRedis) -> Self {
        Self::at(redis.url()).await
    }

    /// An open event whose stock is staged on this cluster.
    pub async fn on_cluster(cluster: &OwnCluster) -> Self {
        Self::at(cluster.url()).await
    }

    async fn at(redis_url: String) -> Self {
        let mesh = quick().set(Service::Inventory, "STAMPEDE_REDIS_URL", redis_url);
        let sale = Self::with(mesh, &[]).await;
        sale.stage().await;
        sale
    }

    /// The same, of which so many replicas run.
    pub async fn replicated_on_redis(replicas: usize, redis: &OwnRedis) -> Self {
        let mesh = MeshBuilder::default().set(Service::Inventory, "STAMPEDE_REDIS_URL", redis.url());
        let sale = Self::with(mesh.replicas(Service::Inventory, replicas), &[]).await;
        sale.mesh.inventory().stage_stock(as_operator(sale.shelf(1))).await.unwrap();
        sale
    }

    /// An event that the inventory has not heard of, with more services than inventory.
    pub async fn unstaged(others: &[Service]) -> Self {
        Self::with(quick(), others).await
    }

    /// An event that the inventory has not heard of, of which so many replicas run.
    pub async fn replicated(replicas: usize) -> Self {
        Self::with(quick().replicas(Service::Inventory, replicas), &[]).await
    }

    /// The same with these settings, and more services than inventory.
    pub async fn with(mesh: MeshBuilder, others: &[Service]) -> Self {
        Self::in_world(prepared().await, mesh, others).await
    }

    /// An event that the inventory has not heard of, on servers that are prepared.
    pub async fn in_world(world: World, mesh: MeshBuilder, others: &[Service]) -> Self {
        let services: Vec<_> = others.iter().copied().chain([Service::Inventory]).collect();
        let mesh = mesh.start(&world, services).await.unwrap();
        Self {
            inventory_db: world.database(Service::Inventory).await.unwrap(),
            orders: Voice::of(&world, Service::Order).await,
            events: Voice::of(&world, Service::Event).await,
            event_id: EventId::derive(buyer(), &RequestId::parse("sale").unwrap()),
            mesh,
            world,
        }
    }

    /// Goes on with another event, and stages its stock.
    pub async fn begin_another(&mut self) {
        self.event_id = EventId::derive(buyer(), &RequestId::parse("sale").unwrap());
        self.stage().await;
    }

    async fn stage(&self) {
        self.api().stage_stock(as_operator(self.shelf(1))).await.unwrap();
    }

    pub fn api(&self) -> InventoryServiceClient<Channel> {
        self.mesh.inventory()
    }

    pub fn item(&self, index: usize) -> ItemId {
        ItemId::derive(self.event_id, index)
    }

    /// What is staged, open from a minute ago for an hour.
    pub fn shelf(&self, event_version: i64) -> proto::StageStockRequest {
        let item = |index: usize, total_units, limit_per_buyer, gift_total_units: i32| proto::StagedItem {
            item_id: self.item(index).to_string(),
            total_units,
            limit_per_buyer,
            gift_total_units,
            unit_price: Some(Money { minor_units: 1999, currency: "EUR".into() }),
            title: format!("Item {index}"),
            gift_title: if gift_total_units > 0 { format!("Gift of item {index}") } else { String::new() },
        };
        proto::StageStockRequest {
            event_id: self.event_id.to_string(),
            event_version,
            open_time: Some(seconds_from_now(-60)),
            close_time: Some(seconds_from_now(3_600)),
            items: vec![item(0, 5, 2, 2), item(1, 3, 1, 0)],
            cancel_time: None,
        }
    }

    /// A buyer's order, not placed yet, for units of item 0 and item 1.
    pub fn order(&self, units: [i32; 2]) -> Order {
        let buyer = buyer();
        let order_id = OrderId::derive(buyer, &RequestId::parse("order").unwrap());
        let lines = units.into_iter().enumerate().filter(|(_, units)| *units > 0);
        let lines = lines.map(|(index, units)| (self.item(index), units)).collect();
        Order { order_id, buyer, event_id: self.event_id, lines }
    }

    /// Asks for units.
    pub async fn reserve(&self, order: &Order) -> Outcome {
        let request = proto::ReserveRequest { reservations: vec![order.reservation()] };
        let mut response = reserve_once_there_is_room(&self.api(), request).await;
        response.results.remove(0).outcome.unwrap()
    }

    /// Gets units.
    pub async fn reserved(&self, order: &Order) -> proto::Reserved {
        match self.reserve(order).await {
            Outcome::Reserved(reserved) => reserved,
            Outcome::Refusal(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    /// Is refused units.
    pub async fn refusal(&self, order: &Order) -> (proto::RefusalReason, i32) {
        match self.reserve(order).await {
            Outcome::Refusal(refusal) => (refusal.reason(), refusal.allowed_units),
            Outcome::Reserved(reserved) => panic!("reserved: {reserved:?}"),
        }
    }

    /// Sends what happens to an order, in one go.
    pub async fn order_says(&self, order: &Order, steps: &[Step]) {
        let messages: Vec<_> = steps.iter().map(|step| order.message(*step)).collect();
        self.order_service_says(order, &messages).await;
    }

    /// Sends messages of the order service about an order, in one go.
    pub async fn order_service_says(&self, order: &Order, messages: &[(&'static str, Vec<u8>)]) {
        self.orders.says(order.order_id.to_string(), messages).await;
    }

    /// Sends that the event is scheduled as `shelf` says.
    pub async fn event_scheduled(&self, shelf: proto::StageStockRequest) {
        let item = |item: proto::StagedItem| messages::ScheduledItem {
            item_id: item.item_id,
            total_units: item.total_units,
            limit_per_buyer: item.limit_per_buyer,
            gift_total_units: item.gift_total_units,
            unit_price: item.unit_price,
            title: item.title,
            gift_title: item.gift_title,
        };
        let scheduled = messages::EventScheduled {
            event_id: shelf.event_id.clone(),
            version: shelf.event_version,
            open_time: shelf.open_time,
            close_time: shelf.close_time,
            items: shelf.items.into_iter().map(item).collect(),
        };
        let scheduled = ("stampede.message.v1.EventScheduled", scheduled.encode_to_vec());
        self.events.says(shelf.event_id, &[scheduled]).await;
    }

    /// Sends that the event was cancelled now.
    pub async fn event_cancelled(&self, version: i64) {
        let event_id = self.event_id.to_string();
        let cancelled = messages::EventCancelled {
            event_id: event_id.clone(),
            version,
            cancel_time: Some(seconds_from_now(0)),
            refund_paid_orders: false,
        };
        self.events.says(event_id, &[("stampede.message.v1.EventCancelled", cancelled.encode_to_vec())]).await;
    }

    /// What is left, committed and held of an item; `None` while it is not ready.
    pub async fn stock(&self, index: usize) -> Option<Level> {
        let request = proto::GetStockRequest { event_id: self.event_id.to_string() };
        let stocks = match self.api().get_stock(request).await {
            Ok(response) => response.into_inner().stocks,
            Err(status) if status.code() == Code::Unavailable => return None,
            Err(status) => panic!("{status:?}"),
        };
        let item_id = self.item(index).to_string();
        let stock = stocks.iter().find(|stock| stock.item_id == item_id).expect("the event offers the item");
        Some(Level {
            left: stock.left_units,
            committed: stock.committed_units,
            held: stock.held_units,
            left_gifts: stock.left_gift_units,
        })
    }

    /// Waits until the stock of an item is this.
    pub async fn stock_becomes(&self, index: usize, expected: Level) {
        eventually(&format!("item {index} is {expected:?}"), || async {
            (self.stock(index).await == Some(expected)).then_some(())
        })
        .await;
    }

    /// Waits until the ledger has this many units of an item, as Redis shows it, and none is on hold.
    pub async fn committed_becomes(&self, index: usize, units: i32) {
        eventually(&format!("{units} units of item {index} are committed"), || async {
            let level = self.stock(index).await?;
            (level.committed == units && level.held == 0).then_some(())
        })
        .await;
    }

    /// How many units the ledger has committed for an order.
    pub async fn in_ledger(&self, order: &Order) -> i64 {
        units_in_ledger(&self.inventory_db, order).await
    }

    /// The answers that the ledger gave to late payments of an order, the first one first.
    pub async fn answers(&self, order: &Order) -> Vec<Answer> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT type, payload FROM outbox WHERE aggregateid = ? ORDER BY id")
                .bind(order.order_id.to_string())
                .fetch_all(&mut *self.inventory_db.acquire().await.unwrap())
                .await
                .unwrap();
        rows.iter().map(|(message_type, payload)| answer(message_type, payload)).collect()
    }

    /// Waits until the ledger has given this many of them.
    pub async fn answered(&self, order: &Order, count: usize) -> Vec<Answer> {
        eventually("the ledger answers", || async {
            let answers = self.answers(order).await;
            (answers.len() >= count).then_some(answers)
        })
        .await
    }

    /// Everything of this sale disappears from Redis.
    pub async fn lose_redis(&self) {
        let mut redis = self.world.admin_redis().await.unwrap();
        redis.delete_all(&self.world.redis_key_prefix()).await.unwrap();
    }
}

/// A world without the schemas of those of whom inventory reads nothing.
pub async fn prepared() -> World {
    World::prepared_for(&[Service::Event, Service::Inventory, Service::Order]).await.unwrap()
}

/// A mesh whose sweeps find within a fraction of a second what they are for.
pub fn quick() -> MeshBuilder {
    MeshBuilder::default()
        .set(Service::Inventory, "STAMPEDE_INVENTORY_SWEEP_INTERVAL_MS", 50)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 100)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", 300)
        .set(Service::Inventory, "STAMPEDE_ORDER_WRITE_LIMIT_MS", 200)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS", 100)
}

/// How many units the ledger has committed for an order.
pub async fn units_in_ledger(inventory: &Database, order: &Order) -> i64 {
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(units), 0) AS SIGNED) FROM ledger WHERE order_id = ? AND state = 'COMMITTED'",
    )
    .bind(order.order_id.uuid())
    .fetch_one(&mut *inventory.acquire().await.unwrap())
    .await
    .unwrap()
}

/// Puts an event behind us that nobody buys from any more: no sweep looks at it from now on.
pub async fn retire(inventory: &Database, event_id: EventId) {
    for statement in [
        "UPDATE stock SET opens_at_us = 1, closes_at_us = 2 WHERE event_id = ?",
        "DELETE r FROM reservations r JOIN ledger l ON l.order_id = r.order_id WHERE l.event_id = ?",
    ] {
        // It locks rows in another order than the sweeps, and one of two that deadlock fails.
        let retired = eventually("the event is retired", || async {
            let mut conn = inventory.acquire().await.ok()?;
            sqlx::query(statement).bind(event_id.uuid()).execute(&mut *conn).await.ok()
        });
        retired.await;
    }
}

/// What is seen of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub left: i32,
    pub committed: i32,
    pub held: i32,
    pub left_gifts: i32,
}

/// What the ledger said to a late payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Committed,
    Rejected { reason: StockRejectReason, item_id: String },
}

fn answer(message_type: &str, payload: &[u8]) -> Answer {
    match message_type {
        "stampede.message.v1.StockCommitted" => Answer::Committed,
        "stampede.message.v1.StockRejected" => {
            let rejected = messages::StockRejected::decode(payload).unwrap();
            Answer::Rejected { reason: rejected.reason(), item_id: rejected.item_id }
        }
        other => panic!("{other}"),
    }
}

/// What happens to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Cancelled,
    Expired,
    PaidLate,
    Refunded,
}

/// A buyer's order.
#[derive(Debug, Clone)]
pub struct Order {
    pub order_id: OrderId,
    pub buyer: UserId,
    pub event_id: EventId,
    pub lines: Vec<(ItemId, i32)>,
}

impl Order {
    /// The same buyer's order for another purchase.
    pub fn again(&self) -> Self {
        Self { order_id: OrderId::derive(self.buyer, &RequestId::parse("again").unwrap()), ..self.clone() }
    }

    pub fn reservation(&self) -> proto::Reservation {
        let line = |(item, units): &(ItemId, i32)| proto::ReservationLine { item_id: item.to_string(), units: *units };
        proto::Reservation {
            order_id: self.order_id.to_string(),
            user_id: self.buyer.to_string(),
            event_id: self.event_id.to_string(),
            lines: self.lines.iter().map(line).collect(),
            request_fingerprint: vec![1; 32],
        }
    }

    /// What the order service says when this happens.
    pub fn message(&self, step: Step) -> (&'static str, Vec<u8>) {
        let order_id = self.order_id.to_string();
        let coupon_id = String::new();
        match step {
            Step::Cancelled => {
                let cancelled = messages::OrderCancelled { order_id, coupon_id };
                ("stampede.message.v1.OrderCancelled", cancelled.encode_to_vec())
            }
            Step::Expired => {
                let expired = messages::OrderExpired { order_id, coupon_id };
                ("stampede.message.v1.OrderExpired", expired.encode_to_vec())
            }
            Step::Refunded => {
                let refunded = messages::OrderRefunded { order_id, coupon_id };
                ("stampede.message.v1.OrderRefunded", refunded.encode_to_vec())
            }
            Step::PaidLate => {
                let line = |(item, units): &(ItemId, i32)| messages::OrderedLine {
                    item_id: item.to_string(),
                    units: *units,
                    gift_units: 0,
                };
                let paid = messages::OrderPaidLate {
                    order_id,
                    user_id: self.buyer.to_string(),
                    event_id: self.event_id.to_string(),
                    lines: self.lines.iter().map(line).collect(),
                };
                ("stampede.message.v1.OrderPaidLate", paid.encode_to_vec())
            }
        }
    }
}

pub fn seconds_from_now(seconds: i64) -> prost_types::Timestamp {
    let now = Timestamp::now().micros() / 1_000_000;
    prost_types::Timestamp { seconds: now + seconds, nanos: 0 }
}

/// Longer than two rounds of every worker as the tests set them.
pub const A_FEW_ROUNDS: Duration = Duration::from_millis(500);

/// Units of an item without gifts.
pub fn level(left: i32, committed: i32, held: i32) -> Level {
    Level { left, committed, held, left_gifts: 0 }
}

/// Why it was refused.
pub fn reason(status: &Status) -> Reason {
    Problem::from_status(status).reason()
}

/// The field at fault.
pub fn field_path(status: &Status) -> Option<String> {
    Problem::from_status(status).field_path().map(str::to_owned)
}

/// The answer that the item of this index has no units for the order.
pub fn rejected(reason: StockRejectReason, sale: &Sale, index: usize) -> Answer {
    Answer::Rejected { reason, item_id: sale.item(index).to_string() }
}

/// Names a request for units, to take it back.
pub fn reservation_ref(sale: &Sale, order: &Order, reserved: &proto::Reserved) -> proto::ReservationRef {
    let (event_id, order_id) = (sale.event_id.to_string(), order.order_id.to_string());
    proto::ReservationRef { event_id, order_id, request_time: reserved.request_time }
}

/// Whether a new buyer is refused for this reason.
pub async fn is_refused(sale: &Sale, reason: RefusalReason) -> bool {
    matches!(sale.reserve(&sale.order([0, 1])).await, Outcome::Refusal(refusal) if refusal.reason() == reason)
}

/// A request for all stock of the event.
pub fn get_stock(sale: &Sale) -> proto::GetStockRequest {
    proto::GetStockRequest { event_id: sale.event_id.to_string() }
}
