//! A sale for tests: a mesh of real processes with an open event, and the actions of buyers.

use serde::Deserialize;
use stampede_proto::{
    coupon::v1::{ClaimCouponRequest, Coupon, CouponState, CreateCampaignRequest, GetCouponRequest},
    event::v1::{CreateEventRequest, Event, EventState, GetEventRequest, Gift, NewItem},
    inventory::v1::{GetStockRequest, Stock},
    order::v1::{GetOrderRequest, NewOrderLine, Order, OrderState, PayOrderRequest, PlaceOrderRequest},
    r#type::v1::Money,
};
use stampede_testkit::{
    Mesh, MeshBuilder, Process, Service, World, as_buyer, as_operator, buyer, eventually, within_deadline,
};
use stampede_vocab::{OrderId, Timestamp, UserId};
use std::{
    process::{Command, Output},
    time::Duration,
};
use tonic::Status;

/// A pay window that no test outlives.
pub const LONG: Duration = Duration::from_secs(600);
/// Time until the event and the campaign of a test close: longer than any test takes.
const OPEN_FOR: Duration = Duration::from_secs(7_200);
/// Time until the event of a test opens: the stock must be staged before.
const OPENS_IN: Duration = Duration::from_millis(1_500);
/// Time until a deadline that is set by hand: later than the sweep has got by then. It looks only every few seconds at
/// what is before that.
const OVER_IN: Duration = Duration::from_millis(200);

pub struct Sale {
    pub world: World,
    pub mesh: Mesh,
    pub event: Event,
}

pub fn eur(minor_units: i64) -> Option<Money> {
    Some(Money { minor_units, currency: "EUR".to_owned() })
}

pub fn fresh() -> String {
    UserId::random().to_string()
}

pub fn in_us(from_now: Duration) -> Option<prost_types::Timestamp> {
    let micros = Timestamp::now().plus(from_now).micros();
    Some(prost_types::Timestamp {
        seconds: micros / 1_000_000,
        nanos: i32::try_from(micros % 1_000_000).unwrap() * 1_000,
    })
}

impl Sale {
    /// A mesh with an open event: item 0 with 10 units, 3 a buyer, 2 gifts; item 1 with 1 unit.
    pub async fn open(pay_window: Duration) -> Self {
        Self::open_as(MeshBuilder::default(), "EUR", pay_window).await
    }

    /// The same on a mesh with more settings.
    pub async fn open_on(builder: MeshBuilder, pay_window: Duration) -> Self {
        Self::open_as(builder, "EUR", pay_window).await
    }

    /// The same in another currency.
    pub async fn open_in(currency: &str, pay_window: Duration) -> Self {
        Self::open_as(MeshBuilder::default(), currency, pay_window).await
    }

    async fn open_as(builder: MeshBuilder, currency: &str, pay_window: Duration) -> Self {
        let world = World::prepared().await.unwrap();
        let mesh = builder
            .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", pay_window.as_millis())
            .set(Service::Order, "STAMPEDE_ORDER_PAYING_GRACE_MS", 0)
            .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500)
            .start(&world, Process::all())
            .await
            .unwrap();
        let item = |title: &str, total_units, limit_per_buyer, gift| NewItem {
            title: title.to_owned(),
            unit_price: Some(Money { minor_units: 1_999, currency: currency.to_owned() }),
            total_units,
            limit_per_buyer,
            gift,
        };
        let gift = Some(Gift { title: "a mug".to_owned(), total_units: 2 });
        let request = CreateEventRequest {
            request_id: fresh(),
            name: "a sale".to_owned(),
            open_time: in_us(OPENS_IN),
            close_time: in_us(OPEN_FOR),
            items: vec![item("a kettle", 10, 3, gift), item("a rarity", 1, 1, None)],
        };
        let event = mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
        let sale = Self { world, mesh, event };
        sale.until_open((1, 2)).await;
        sale
    }

    /// Waits until the event is open and its stock is staged: then these units, which are more than a buyer may have,
    /// are refused for that. Waits for its own service too, without which it sells: an audit before that has opened the
    /// event would find it late, or moving.
    pub async fn until_open(&self, too_many: (usize, i32)) {
        eventually("the event is open and its stock is staged", || async {
            let refused = self.place(buyer(), &[too_many], "").await.unwrap_err();
            (stampede_reason(&refused) == "LIMIT_REACHED").then_some(())
        })
        .await;
        self.until_event(&self.event.event_id, EventState::Open).await;
    }

    pub async fn until_event(&self, event_id: &str, state: EventState) {
        eventually(&format!("the event is {state:?}"), || async {
            let request = GetEventRequest { event_id: event_id.to_owned() };
            let event = self.mesh.event().get_event(as_operator(request)).await.ok()?.into_inner().event?;
            (event.state() == state).then_some(())
        })
        .await;
    }

    pub async fn place(&self, user: UserId, lines: &[(usize, i32)], coupon_id: &str) -> Result<Order, Status> {
        self.place_as(user, &fresh(), lines, coupon_id).await
    }

    pub async fn place_as(
        &self,
        user: UserId,
        request_id: &str,
        lines: &[(usize, i32)],
        coupon_id: &str,
    ) -> Result<Order, Status> {
        let line =
            |&(item, units): &(usize, i32)| NewOrderLine { item_id: self.event.items[item].item_id.clone(), units };
        let request = PlaceOrderRequest {
            request_id: request_id.to_owned(),
            event_id: self.event.event_id.clone(),
            lines: lines.iter().map(line).collect(),
            coupon_id: coupon_id.to_owned(),
            max_total: None,
        };
        Ok(self.mesh.order().place_order(as_buyer(user, request)).await?.into_inner().order.unwrap())
    }

    pub async fn pay(&self, user: UserId, order: &Order, payment_method: &str) -> Result<Order, Status> {
        let request = PayOrderRequest {
            order_id: order.order_id.clone(),
            request_id: fresh(),
            payment_method: payment_method.to_owned(),
        };
        Ok(self.mesh.order().pay_order(as_buyer(user, request)).await?.into_inner().order.unwrap())
    }

    pub async fn get(&self, user: UserId, order: &Order) -> Order {
        let request = GetOrderRequest { order_id: order.order_id.clone() };
        self.mesh.order().get_order(as_buyer(user, request)).await.unwrap().into_inner().order.unwrap()
    }

    /// Waits until the order is in this state. Panics with what the audit finds meanwhile.
    pub async fn until(&self, user: UserId, order: &Order, state: OrderState) -> Order {
        let reached = within_deadline(|| async {
            let order = self.get(user, order).await;
            (order.state() == state).then_some(order)
        });
        if let Some(order) = reached.await {
            return order;
        }
        let now = self.get(user, order).await;
        let audit = self.run_audit(&["--quiet-deadline-s", "1"]);
        panic!("{} is not {state:?} but {:?}: {audit:#?}", now.order_id, now.state());
    }

    /// Lets the time for the payment of an order end now, however long it would be.
    pub async fn time_is_over(&self, order: &Order) {
        let order: OrderId = order.order_id.parse().unwrap();
        let db = self.world.database(Service::Order).await.unwrap();
        let end = sqlx::query("UPDATE orders SET pay_deadline_us = ? WHERE id = ?");
        let end = end.bind(Timestamp::now().plus(OVER_IN).micros()).bind(order.as_bytes());
        let ended = end.execute(&mut *db.acquire().await.unwrap()).await.unwrap();
        assert_eq!(ended.rows_affected(), 1, "{order}");
    }

    /// Places an order, which may be paid.
    pub async fn placed(&self, user: UserId, lines: &[(usize, i32)], coupon_id: &str) -> Order {
        let order = self.place(user, lines, coupon_id).await.unwrap();
        self.until(user, &order, OrderState::AwaitingPayment).await
    }

    pub async fn bought(&self, user: UserId, lines: &[(usize, i32)], coupon_id: &str) -> Order {
        let order = self.placed(user, lines, coupon_id).await;
        self.pay(user, &order, "pm_card_ok").await.unwrap();
        self.until(user, &order, OrderState::Fulfilled).await
    }

    pub async fn stock(&self, item: usize) -> Stock {
        self.try_stock(item).await.unwrap()
    }

    async fn try_stock(&self, item: usize) -> Result<Stock, Status> {
        let request = GetStockRequest { event_id: self.event.event_id.clone() };
        let stocks = self.mesh.inventory().get_stock(as_operator(request)).await?.into_inner().stocks;
        Ok(stocks.into_iter().find(|stock| stock.item_id == self.event.items[item].item_id).unwrap())
    }

    /// Waits for it. A read may be refused: a session that the database has ended fails the first that finds out.
    pub async fn until_left(&self, item: usize, units: i32, gifts: i32) {
        eventually(&format!("{units} units and {gifts} gifts are left"), || async {
            let stock = self.try_stock(item).await.ok()?;
            ((stock.left_units, stock.left_gift_units) == (units, gifts)).then_some(())
        })
        .await;
    }

    pub async fn claim(&self, user: UserId) -> Coupon {
        let request = CreateCampaignRequest {
            request_id: fresh(),
            name: "ten off".to_owned(),
            quota: 5,
            discount: eur(1_000),
            event_id: self.event.event_id.clone(),
            open_time: in_us(Duration::ZERO),
            close_time: in_us(OPEN_FOR),
        };
        let campaign =
            self.mesh.coupon().create_campaign(as_operator(request)).await.unwrap().into_inner().campaign.unwrap();
        eventually("the campaign takes claims", || async {
            let request =
                ClaimCouponRequest { campaign_id: campaign.campaign_id.clone(), request_id: "claim".to_owned() };
            self.mesh.coupon().claim_coupon(as_buyer(user, request)).await.ok()?.into_inner().coupon
        })
        .await
    }

    pub async fn until_coupon(&self, user: UserId, coupon: &Coupon, state: CouponState) {
        eventually(&format!("the coupon is {state:?}"), || async {
            let request = GetCouponRequest { coupon_id: coupon.coupon_id.clone() };
            let coupon =
                self.mesh.coupon().get_coupon(as_buyer(user, request)).await.unwrap().into_inner().coupon.unwrap();
            (coupon.state() == state).then_some(())
        })
        .await;
    }

    /// Checks that every promise holds, by the operator's own command.
    pub fn audit(&self) {
        self.audit_after("all that was done");
    }

    /// The same. Panics with `what` was done before, and with what the audit finds.
    pub fn audit_after(&self, what: &str) {
        let audit = self.run_audit(&[]);
        assert!(audit.holds, "after {what}: {audit:#?}");
        assert_eq!(audit.promises.len(), 8);
    }

    /// Returns the findings of the operator's own command.
    pub fn run_audit(&self, more: &[&str]) -> Audit {
        run_audit(&self.world, &self.mesh, more)
    }

    /// Returns the error of the operator's own command, which cannot do its work.
    pub fn failed_audit(&self, more: &[&str]) -> String {
        let output = audit_command(&self.world, &self.mesh, more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        error["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// The operator's own command, in this world.
pub fn audit_command(world: &World, mesh: &Mesh, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command
        .args(["-o", "json", "audit"])
        .args(["--database-url", world.database_url(), "--schema-prefix", &world.schema_prefix()])
        .args(["--redis-key-prefix", &world.redis_key_prefix()])
        .args(["--kafka-brokers", world.brokers()])
        .args(["--provider-url", &mesh.url(Process::Sandbox)])
        // By the environment, so that a test may override it by flags.
        .env("STAMPEDE_KAFKA_TOPIC_PREFIX", world.topic_prefix());
    if !more.contains(&"--redis-url") {
        command.args(["--redis-url", world.redis_url()]);
    }
    if !more.contains(&"--open-within-ms") {
        command.args(["--open-within-ms", "5000"]);
    }
    command.args(more);
    command
}

/// Returns the findings of the operator's own command in this world.
pub fn run_audit(world: &World, mesh: &Mesh, more: &[&str]) -> Audit {
    findings(&audit_command(world, mesh, more).output().unwrap())
}

/// Reads the findings that the command has written, which its exit code agrees with.
pub fn findings(output: &Output) -> Audit {
    let errors = String::from_utf8_lossy(&output.stderr);
    let audit: Audit = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(output.status.success(), audit.holds, "the exit code says something else than the verdict: {errors}");
    audit
}

/// The output of `stampede -o json audit`.
#[derive(Debug, Deserialize)]
pub struct Audit {
    pub holds: bool,
    pub promises: Vec<Promise>,
    pub still_moving: Vec<String>,
    pub left_out: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Promise {
    pub number: usize,
    pub holds: bool,
    pub breaches: Vec<Breach>,
}

#[derive(Debug, Deserialize)]
pub struct Breach {
    pub what: String,
    pub named: Vec<String>,
}

pub fn stampede_reason(status: &Status) -> String {
    use prost::Message;
    #[derive(Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    #[derive(Message)]
    struct ErrorInfo {
        #[prost(string, tag = "1")]
        reason: String,
    }
    let details = Details::decode(status.details()).unwrap_or_default().details;
    let info = details.iter().find(|any| any.type_url.ends_with("google.rpc.ErrorInfo"));
    info.and_then(|any| ErrorInfo::decode(any.value.as_slice()).ok()).map(|info| info.reason).unwrap_or_default()
}
