//! What the tests are made of: a sale that is open, buyers, and somebody who answers as the payment service does.

use anyhow::{Context, Result, ensure};
use prost::Message;
use stampede_db::{Conn, Database};
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig};
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{ClaimCouponRequest, Coupon, CreateCampaignRequest, GetCouponRequest},
    inventory::v1::{GetStockRequest, ReleaseRequest, ReservationRef, StageStockRequest, StagedItem, Stock},
    message::v1 as messages,
    order::v1::{
        CancelOrderRequest, GetOrderRequest, NewOrderLine, Order, OrderState, PayOrderRequest, PlaceOrderRequest,
        RefundOrderRequest,
    },
    r#type::v1::{DeclineCode, Money},
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{
    Mesh, MeshBuilder, Service, World, as_buyer, as_operator, as_order_service, eventually, within_deadline,
};
use stampede_vocab::{EventId, ItemId, OrderId, PaymentId, Timestamp, UserId};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use uuid::Uuid;

/// What one lamp costs. There are [`UNITS`] and a buyer may have 2.
pub const LAMP_PRICE: i64 = 5_000;
/// What one kettle costs. There are [`UNITS`], a buyer may have 5, and the first to buy one gets the only tea set.
pub const KETTLE_PRICE: i64 = 1_999;
/// Units there are of each item.
pub const UNITS: i32 = 10;
/// What a coupon takes off.
pub const DISCOUNT: i64 = 700;

/// Long enough to pay for whatever a test prepares; it ends by [`Sale::time_is_over`].
pub const LONG: Duration = Duration::from_secs(600);

const HOUR: Duration = Duration::from_secs(3_600);

/// Services that take part.
const SERVICES: [Service; 3] = [Service::Coupon, Service::Inventory, Service::Order];

/// An open sale of lamps and kettles.
pub struct Sale {
    pub mesh: Mesh,
    pub event: EventId,
    pub lamp: ItemId,
    pub kettle: ItemId,
    orders: Database,
    inventory: Database,
    payments: Database,
    outbox: Outbox,
    /// What the event service would write goes here, and is sent.
    pub events: Database,
    pub event_outbox: Outbox,
    _relays: DropGuard,
}

/// Sends what is in the outbox of a service that does not run.
fn relay(world: &World, service: Service, db: &Database, stop: &CancellationToken) -> Result<Outbox> {
    let config = RelayConfig::new(world.brokers(), world.topic_prefix(), service);
    let (outbox, relay) = Relay::new(config, db.clone())?;
    tokio::spawn(relay.run(stop.clone()));
    Ok(outbox)
}

/// An amount in euros.
pub fn eur(minor_units: i64) -> Money {
    Money { minor_units, currency: "EUR".to_owned() }
}

/// The reason and the field of a refusal.
pub fn refusal(status: &Status) -> (Reason, Option<String>) {
    let problem = Problem::from_status(status);
    (problem.reason(), problem.field_path().map(str::to_owned))
}

/// A refusal of this field for this reason.
pub fn refused(reason: Reason, field: &str) -> (Reason, Option<String>) {
    (reason, Some(field.to_owned()))
}

impl Sale {
    /// Opens with the defaults.
    pub async fn open() -> Result<Self> {
        Self::open_with(MeshBuilder::default()).await
    }

    /// Opens with so long to pay, and no grace for a payment under way.
    pub async fn with_time_to_pay(time: Duration) -> Result<Self> {
        let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", time.as_millis()).set(
            Service::Order,
            "STAMPEDE_ORDER_PAYING_GRACE_MS",
            0,
        );
        Self::open_with(settings).await
    }

    /// Opens with these settings.
    pub async fn open_with(settings: MeshBuilder) -> Result<Self> {
        Self::open_on(World::prepared().await?, settings).await
    }

    /// Opens on a schema on which an earlier release has run.
    pub async fn beside_an_earlier_release(settings: MeshBuilder) -> Result<Self> {
        let world = World::prepared().await?;
        let orders = world.database(Service::Order).await?;
        sqlx::query("UPDATE order_form SET one_row = FALSE").execute(&mut *orders.acquire().await?).await?;
        Self::open_on(world, settings).await
    }

    /// Opens in this world.
    pub async fn open_on(world: World, settings: MeshBuilder) -> Result<Self> {
        let orders = world.database(Service::Order).await?;
        let inventory = world.database(Service::Inventory).await?;
        let (events, payments) = (world.database(Service::Event).await?, world.database(Service::Payment).await?);
        let stop = CancellationToken::new();
        let event_outbox = relay(&world, Service::Event, &events, &stop)?;
        let outbox = relay(&world, Service::Payment, &payments, &stop)?;
        let mesh = settings.start(&world, SERVICES).await?;
        let event = EventId::from_uuid(Uuid::from_u128(1));
        let (lamp, kettle) = (ItemId::derive(event, 0), ItemId::derive(event, 1));
        let sale = Self {
            mesh,
            event,
            lamp,
            kettle,
            orders,
            inventory,
            payments,
            outbox,
            events,
            event_outbox,
            _relays: stop.drop_guard(),
        };
        sale.stage(event, Timestamp::now().minus(HOUR)).await?;
        Ok(sale)
    }

    /// Puts lamps and kettles on the shelf of an event that opens then and is open for two hours.
    pub async fn stage(&self, event: EventId, open_time: Timestamp) -> Result<()> {
        let lamp = StagedItem { limit_per_buyer: 2, title: "Lamp".to_owned(), ..item(event, 0, eur(LAMP_PRICE)) };
        let kettle = StagedItem {
            gift_total_units: 1,
            title: "Kettle".to_owned(),
            gift_title: "Tea set".to_owned(),
            ..item(event, 1, eur(KETTLE_PRICE))
        };
        self.stage_items(event, open_time, vec![lamp, kettle]).await
    }

    /// Opens another event with items of these prices, of which a buyer may have 5, and returns it.
    pub async fn another_event(&self, number: u128, prices: &[Money]) -> Result<EventId> {
        let event = EventId::from_uuid(Uuid::from_u128(number));
        let items = prices.iter().enumerate().map(|(index, price)| item(event, index, price.clone())).collect();
        self.stage_items(event, Timestamp::now().minus(HOUR), items).await?;
        Ok(event)
    }

    async fn stage_items(&self, event: EventId, open_time: Timestamp, items: Vec<StagedItem>) -> Result<()> {
        let request = StageStockRequest {
            event_id: event.to_string(),
            event_version: 1,
            open_time: Some(timestamp(open_time)),
            close_time: Some(timestamp(open_time.plus(2 * HOUR))),
            items,
            cancel_time: None,
        };
        self.mesh.inventory().stage_stock(as_operator(request)).await?;
        Ok(())
    }

    /// A request for these items.
    pub fn wish(&self, request_id: &str, lines: &[(ItemId, i32)]) -> PlaceOrderRequest {
        let line = |&(item, units): &(ItemId, i32)| NewOrderLine { item_id: item.to_string(), units };
        PlaceOrderRequest {
            request_id: request_id.to_owned(),
            event_id: self.event.to_string(),
            lines: lines.iter().map(line).collect(),
            coupon_id: String::new(),
            max_total: None,
        }
    }

    pub async fn place(&self, buyer: UserId, wish: PlaceOrderRequest) -> Result<Order, Status> {
        let placed = self.mesh.order().place_order(as_buyer(buyer, wish)).await?;
        placed.into_inner().order.ok_or_else(|| Status::internal("no order"))
    }

    /// Places an order for one lamp, which may be paid.
    pub async fn payable_lamp(&self, buyer: UserId) -> Result<Order> {
        let placed = self.place(buyer, self.wish("lamp", &[(self.lamp, 1)])).await?;
        Ok(self.reaches(&placed, OrderState::AwaitingPayment).await)
    }

    /// Starts a payment.
    pub async fn pay(&self, order: &Order, request_id: &str) -> Result<Order, Status> {
        self.pay_with(order, request_id, "pm_card_ok").await
    }

    /// Starts a payment with this card.
    pub async fn pay_with(&self, order: &Order, request_id: &str, payment_method: &str) -> Result<Order, Status> {
        let request = PayOrderRequest {
            order_id: order.order_id.clone(),
            request_id: request_id.to_owned(),
            payment_method: payment_method.to_owned(),
        };
        let paid = self.mesh.order().pay_order(as_buyer(buyer_of(order), request)).await?;
        paid.into_inner().order.ok_or_else(|| Status::internal("no order"))
    }

    pub async fn cancel(&self, order: &Order, request_id: &str) -> Result<Order, Status> {
        let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: request_id.to_owned() };
        let cancelled = self.mesh.order().cancel_order(as_buyer(buyer_of(order), request)).await?;
        cancelled.into_inner().order.ok_or_else(|| Status::internal("no order"))
    }

    /// The order as it is now.
    pub async fn now(&self, order: &Order) -> Result<Order> {
        let request = GetOrderRequest { order_id: order.order_id.clone() };
        let found = self.mesh.order().get_order(as_operator(request)).await?;
        found.into_inner().order.context("an order")
    }

    /// Waits until the order is in this state.
    pub async fn reaches(&self, order: &Order, state: OrderState) -> Order {
        let reached = within_deadline(|| async { self.now(order).await.ok().filter(|now| now.state() == state) });
        match reached.await {
            Some(order) => order,
            None => panic!("it does not become {state:?}: {:?}", self.now(order).await),
        }
    }

    /// Answers the latest payment of an order as captured.
    pub async fn approve(&self, order: &Order) -> Result<()> {
        let message = messages::PaymentApproved {
            payment_id: payment_of(order).to_string(),
            order_id: order.order_id.clone(),
            attempt: order.payment_attempts,
            captured: order.total.clone(),
        };
        self.answer(order, "stampede.message.v1.PaymentApproved", message.encode_to_vec()).await
    }

    /// Answers the latest payment of an order as declined.
    pub async fn decline(&self, order: &Order) -> Result<()> {
        let message = messages::PaymentDeclined {
            payment_id: payment_of(order).to_string(),
            order_id: order.order_id.clone(),
            attempt: order.payment_attempts,
            provider_code: "card_declined".to_owned(),
            decline_code: DeclineCode::CardDeclined.into(),
        };
        self.answer(order, "stampede.message.v1.PaymentDeclined", message.encode_to_vec()).await
    }

    /// Tells that the money of an order is back.
    pub async fn money_is_back(&self, order: &Order) -> Result<()> {
        let message = messages::PaymentRefunded {
            payment_id: payment_of(order).to_string(),
            order_id: order.order_id.clone(),
            refunded: order.total.clone(),
        };
        self.answer(order, "stampede.message.v1.PaymentRefunded", message.encode_to_vec()).await
    }

    async fn answer(&self, order: &Order, message_type: &str, payload: Vec<u8>) -> Result<()> {
        let message = OutboxMessage {
            aggregate_type: "payment",
            aggregate_id: payment_of(order).to_string(),
            aggregate_version: 1,
            message_type: message_type.to_owned(),
            payload,
            traceparent: None,
        };
        let rows = Arc::new([message]);
        let append = self.payments.transact("answer", move |conn| {
            let rows = rows.clone();
            Box::pin(async move { stampede_outbox::append(conn, &*rows).await })
        });
        append.await?;
        self.outbox.wake();
        Ok(())
    }

    /// The messages that the service has written about an order, in its order: the name and the version of each
    /// message.
    pub async fn published(&self, order: &Order) -> Result<Vec<(String, i64)>> {
        let mut conn = self.orders.acquire().await?;
        let query =
            "SELECT SUBSTRING_INDEX(type, '.', -1), aggregate_version FROM outbox WHERE aggregateid = ? ORDER BY id";
        Ok(sqlx::query_as(query).bind(&order.order_id).fetch_all(&mut *conn).await?)
    }

    /// Makes of an order what an earlier release has left in this state, so many seconds ago.
    pub async fn leave_as_before(&self, order: &Order, state: &str, seconds: i64) -> Result<()> {
        let id: OrderId = order.order_id.parse()?;
        let mut conn = self.orders.acquire().await?;
        sqlx::query("UPDATE orders SET state = ?, pay_deadline_us = NULL, created_us = created_us - ? WHERE id = ?")
            .bind(state)
            .bind(seconds * 1_000_000)
            .bind(id.uuid())
            .execute(&mut *conn)
            .await?;
        Ok(())
    }

    /// Gives back the units that were just taken for an order, as if the ledger had never been asked for them.
    pub async fn forget_units(&self, order: &Order) -> Result<()> {
        let id: OrderId = order.order_id.parse()?;
        let mut conn = self.inventory.acquire().await?;
        let query = sqlx::query_scalar("SELECT asked_at_us FROM reservations WHERE order_id = ?").bind(id.uuid());
        let request_time = Timestamp::from_micros(query.fetch_one(&mut *conn).await?);
        let reservation = ReservationRef {
            event_id: order.event_id.clone(),
            order_id: order.order_id.clone(),
            request_time: Some(timestamp(request_time)),
        };
        let request = as_order_service(ReleaseRequest { reservations: vec![reservation] });
        let released = self.mesh.inventory().release(request).await?.into_inner().released;
        ensure!(released == 1, "{released} orders gave their units back");
        Ok(())
    }

    /// Tells something of an order as the inventory does, through its outbox.
    pub async fn inventory_tells(&self, order: &Order, message_type: &str, payload: Vec<u8>) -> Result<()> {
        let message = OutboxMessage {
            aggregate_type: "stock",
            aggregate_id: order.order_id.clone(),
            aggregate_version: 1,
            message_type: message_type.to_owned(),
            payload,
            traceparent: None,
        };
        let mut conn = self.inventory.acquire().await?;
        Ok(stampede_outbox::append(&mut conn, &[message]).await?)
    }

    /// Waits until so many messages of this kind (`payment_approved`) came to their orders with this outcome
    /// (`ignored`).
    pub async fn took(&self, input: &str, outcome: &str, count: u64) {
        let what = format!("{count} of {input} were {outcome}");
        eventually(&what, || async { (self.taken(input, outcome).await.ok()? == count).then_some(()) }).await;
    }

    async fn taken(&self, input: &str, outcome: &str) -> Result<u64> {
        let (input, outcome) = (format!("input=\"{input}\""), format!("outcome=\"{outcome}\""));
        let metrics = self.mesh.metrics(Service::Order).await?;
        let counts = metrics.values("stampede_order_changes_total", &[&input, &outcome]);
        Ok(counts.into_iter().sum::<f64>() as u64)
    }

    /// How many keys are set aside behind a dead letter.
    pub async fn parked_keys(&self) -> Result<i64> {
        let mut conn = self.orders.acquire().await?;
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM inbox_parked").fetch_one(&mut *conn).await?)
    }

    /// A connection to the schema of the orders.
    pub async fn connection(&self) -> Result<Conn> {
        Ok(self.orders.acquire().await?)
    }

    /// A connection to the schema of the inventory.
    pub async fn inventory_connection(&self) -> Result<Conn> {
        Ok(self.inventory.acquire().await?)
    }

    /// Changes the rows of an order by SQL with one place for its id.
    pub async fn tamper(&self, order: &Order, sql: &'static str) -> Result<()> {
        let id: OrderId = order.order_id.parse()?;
        let changed = sqlx::query(sql).bind(id.uuid()).execute(&mut *self.connection().await?).await?;
        ensure!(changed.rows_affected() > 0, "nothing was changed by {sql}");
        Ok(())
    }

    /// Ends the time to pay of an order now.
    pub async fn time_is_over(&self, order: &Order) -> Result<()> {
        let (id, now): (OrderId, _) = (order.order_id.parse()?, Timestamp::now());
        let end = sqlx::query("UPDATE orders SET pay_deadline_us = ? WHERE id = ?").bind(now.micros()).bind(id.uuid());
        let ended = end.execute(&mut *self.connection().await?).await?.rows_affected();
        ensure!(ended == 1, "{} has no time to pay", order.order_id);
        Ok(())
    }

    /// Reads a number about an order by SQL with one place for its id.
    pub async fn number(&self, order: &Order, sql: &'static str) -> Result<i64> {
        let id: OrderId = order.order_id.parse()?;
        Ok(sqlx::query_scalar(sql).bind(id.uuid()).fetch_one(&mut *self.connection().await?).await?)
    }

    /// The names of the messages that the service has written about an order.
    pub async fn told(&self, order: &Order) -> Result<Vec<String>> {
        Ok(self.published(order).await?.into_iter().map(|(name, _)| name).collect())
    }

    /// Refunds an order as an operator, the same one each time.
    pub async fn refund(&self, order: &Order, request_id: &str) -> Result<Order, Status> {
        let request = RefundOrderRequest { order_id: order.order_id.clone(), request_id: request_id.to_owned() };
        let refunding = self.mesh.order().refund_order(as_operator(request)).await?;
        refunding.into_inner().order.ok_or_else(|| Status::internal("no order"))
    }

    /// Orders that were ever written.
    pub async fn orders_written(&self) -> Result<i64> {
        let mut conn = self.orders.acquire().await?;
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM orders").fetch_one(&mut *conn).await?)
    }

    /// The stock of an item.
    pub async fn stock(&self, item: ItemId) -> Result<Stock> {
        self.stock_of(self.event, item).await
    }

    /// The stock of an item of any event.
    pub async fn stock_of(&self, event: EventId, item: ItemId) -> Result<Stock> {
        let request = GetStockRequest { event_id: event.to_string() };
        let stocks = self.mesh.inventory().get_stock(as_operator(request)).await?.into_inner().stocks;
        stocks.into_iter().find(|stock| stock.item_id == item.to_string()).context("the item's stock")
    }

    /// Waits until so many units of an item are left and none is on hold.
    pub async fn settles_at(&self, item: ItemId, left_units: i32) -> Stock {
        eventually(&format!("{left_units} units of {item} are left and none on hold"), || async {
            self.stock(item).await.ok().filter(|stock| stock.left_units == left_units && stock.held_units == 0)
        })
        .await
    }

    /// A coupon of this buyer that counts in any event.
    pub async fn coupon_for(&self, buyer: UserId) -> Result<Coupon> {
        self.coupon_of(buyer, campaign("any")).await
    }

    /// A coupon of this buyer, of a campaign made for them.
    pub async fn coupon_of(&self, buyer: UserId, campaign: CreateCampaignRequest) -> Result<Coupon> {
        let request_id = format!("{}-{}", campaign.request_id, buyer.uuid().simple());
        let request = CreateCampaignRequest { request_id, ..campaign };
        let created = self.mesh.coupon().create_campaign(as_operator(request)).await?.into_inner();
        let campaign_id = created.campaign.context("a campaign")?.campaign_id;
        Ok(eventually("the campaign takes claims", || async {
            let claim = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: "claim".to_owned() };
            self.mesh.coupon().claim_coupon(as_buyer(buyer, claim)).await.ok()?.into_inner().coupon
        })
        .await)
    }

    /// The coupon as it is now.
    pub async fn coupon(&self, coupon: &Coupon) -> Result<Coupon> {
        let request = GetCouponRequest { coupon_id: coupon.coupon_id.clone() };
        self.mesh.coupon().get_coupon(as_operator(request)).await?.into_inner().coupon.context("a coupon")
    }
}

/// An item of an event: [`UNITS`] at this price, 5 a buyer.
fn item(event: EventId, index: usize, price: Money) -> StagedItem {
    StagedItem {
        item_id: ItemId::derive(event, index).to_string(),
        total_units: UNITS,
        limit_per_buyer: 5,
        gift_total_units: 0,
        unit_price: Some(price),
        ..StagedItem::default()
    }
}

/// An open campaign of coupons that count in any event.
pub fn campaign(request_id: &str) -> CreateCampaignRequest {
    CreateCampaignRequest {
        request_id: request_id.to_owned(),
        name: "First come".to_owned(),
        quota: 5,
        discount: Some(eur(DISCOUNT)),
        event_id: String::new(),
        open_time: Some(timestamp(Timestamp::now().minus(HOUR))),
        close_time: Some(timestamp(Timestamp::now().plus(HOUR))),
    }
}

/// Who placed an order.
pub fn buyer_of(order: &Order) -> UserId {
    order.user_id.parse().expect("an order has a buyer")
}

/// The payment of an order.
pub fn payment_of(order: &Order) -> PaymentId {
    PaymentId::derive(order.order_id.parse::<OrderId>().expect("an order has an id"))
}
