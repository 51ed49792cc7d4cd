//! The play of each RPC's row: the call, another request under the same key, and the read of the effect. Each play has
//! an event, a buyer and a campaign of its own, so that nothing else changes the effect.

use super::{Desk, text};
use crate::sale::fresh;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use stampede_testkit::{buyer, eventually};
use stampede_vocab::{EventId, ItemId, OrderId, RequestId, Timestamp, UserId};

/// Price of one unit, in cents.
const PRICE: i64 = 1_999;

/// The caller.
#[derive(Debug, Clone, Copy)]
pub enum By {
    Operator,
    Service,
    Buyer(UserId),
}

/// The read that shows an effect.
pub struct Look {
    pub rpc: &'static str,
    pub by: By,
    pub body: Value,
    /// The fields of the answer that show it.
    pub keys: &'static [&'static str],
}

/// The play of a row.
pub struct Play {
    pub by: By,
    pub body: Value,
    pub look: Look,
    /// Another request under the same key, where there can be one.
    pub other: Option<Value>,
    /// Whether that has an effect of its own.
    pub other_changes: bool,
    /// The fields that both answers must have, and the same in both.
    pub same: &'static [&'static str],
    /// Whether the first call changes the effect.
    pub changes: bool,
    /// The final effect, if it comes later than the answer.
    pub settles_as: Option<&'static str>,
}

impl Play {
    /// Calls with this body, and reads the effect by `look`.
    fn new(by: By, body: Value, look: Look) -> Self {
        let same = &[];
        Self { by, body, look, other: None, other_changes: false, same, changes: true, settles_as: None }
    }

    fn other(self, body: Value) -> Self {
        Self { other: Some(body), ..self }
    }

    fn same(self, same: &'static [&'static str]) -> Self {
        Self { same, ..self }
    }
}

/// Returns the play of this RPC's row.
pub async fn of(desk: &Desk, call: &str) -> Play {
    match call {
        "event.CreateEvent" => create_event(),
        "event.RescheduleEvent" => reschedule_event(desk).await,
        "event.CancelEvent" => cancel_event(desk).await,
        "coupon.CreateCampaign" => create_campaign(),
        "coupon.ClaimCoupon" => claim_coupon(desk).await,
        "coupon.HoldCoupons" => hold_coupons(desk).await,
        "coupon.ReleaseCoupon" => release_coupon(desk).await,
        "inventory.StageStock" => stage_stock(desk).await,
        "inventory.Reserve" => reserve(desk).await,
        "inventory.Release" => release(desk).await,
        "inventory.Reconcile" => reconcile(desk).await,
        "order.PlaceOrder" => place_order(desk).await,
        "order.PayOrder" => pay_order(desk).await,
        "order.CancelOrder" => cancel_order(desk).await,
        "order.RefundOrder" => refund_order(desk).await,
        "payment.HandleWebhook" => handle_webhook(desk).await,
        _ => panic!("{call}: say here how it is played"),
    }
}

/// Formats a time for JSON.
fn at(seconds_from_now: i64) -> String {
    let seconds = Timestamp::now().micros() / 1_000_000 + seconds_from_now;
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

fn euros(minor_units: i64) -> Value {
    json!({"minor_units": minor_units, "currency": "EUR"})
}

/// The fingerprint of a request, one for each of these numbers, in base64.
fn fingerprint(number: u8) -> &'static str {
    match number {
        1 => "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        _ => "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
    }
}

/// `body` with another value in one field.
fn with(body: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    body[field] = value.into();
    body
}

fn event_body() -> Value {
    let item = json!({"title": "a kettle", "unit_price": euros(PRICE), "total_units": 10, "limit_per_buyer": 3});
    json!({
        "request_id": fresh(), "name": "a sale", "open_time": at(3_600), "close_time": at(7_200), "items": [item],
    })
}

fn create_event() -> Play {
    let body = event_body();
    let look = Look { rpc: "event.ListEvents", by: By::Operator, body: json!({}), keys: &["eventId"] };
    let other = with(&body, "name", "another sale");
    Play::new(By::Operator, body, look).other(other).same(&["eventId", "version"])
}

/// An event that has not opened.
async fn scheduled(desk: &Desk) -> String {
    text(&desk.done("event.CreateEvent", By::Operator, &event_body()).await, "eventId")
}

async fn reschedule_event(desk: &Desk) -> Play {
    let event_id = scheduled(desk).await;
    let body = json!({"event_id": event_id, "open_time": at(4_000), "close_time": at(8_000)});
    let keys = &["openTime", "closeTime"];
    let look = Look { rpc: "event.GetEvent", by: By::Operator, body: json!({"event_id": event_id}), keys };
    let other = with(&body, "open_time", at(5_000));
    Play { other_changes: true, ..Play::new(By::Operator, body, look).other(other).same(keys) }
}

async fn cancel_event(desk: &Desk) -> Play {
    let body = json!({"event_id": scheduled(desk).await});
    let look = Look { rpc: "event.GetEvent", by: By::Operator, body: body.clone(), keys: &["state", "version"] };
    let other = with(&body, "paid_orders", "PAID_ORDERS_REFUND");
    Play {
        other_changes: true,
        ..Play::new(By::Operator, body, look).other(other).same(&["eventId", "state", "version"])
    }
}

fn campaign_body() -> Value {
    json!({
        "request_id": fresh(), "name": "one off", "quota": 10, "discount": euros(100), "open_time": at(-60),
        "close_time": at(3_600),
    })
}

fn create_campaign() -> Play {
    let body = campaign_body();
    let look = Look { rpc: "coupon.ListCampaigns", by: By::Operator, body: json!({}), keys: &["campaignId"] };
    let other = with(&body, "quota", 11);
    Play::new(By::Operator, body, look).other(other).same(&["campaignId", "quota"])
}

/// A campaign that takes claims.
async fn campaign(desk: &Desk) -> String {
    let created = desk.done("coupon.CreateCampaign", By::Operator, &campaign_body()).await;
    let campaign_id = text(&created, "campaignId");
    let claim = claim_body(&campaign_id);
    eventually("the campaign takes claims", || async {
        desk.call("coupon.ClaimCoupon", By::Buyer(buyer()), &claim).await.ok()
    })
    .await;
    campaign_id
}

fn claim_body(campaign_id: &str) -> Value {
    json!({"campaign_id": campaign_id, "request_id": fresh()})
}

async fn claim_coupon(desk: &Desk) -> Play {
    let (campaign_id, by) = (campaign(desk).await, By::Buyer(buyer()));
    let body = claim_body(&campaign_id);
    let look = Look { rpc: "coupon.ListCoupons", by, body: json!({}), keys: &["couponId"] };
    Play::new(by, body, look).other(claim_body(&campaign_id)).same(&["couponId", "rank"])
}

/// A coupon of a new buyer: the request to hold it, and the read of it.
async fn coupon(desk: &Desk) -> (Value, Look) {
    let user = buyer();
    let claim = claim_body(&campaign(desk).await);
    let coupon_id = text(&desk.done("coupon.ClaimCoupon", By::Buyer(user), &claim).await, "couponId");
    let hold = json!({
        "coupon_id": coupon_id, "order_id": order_id(user), "user_id": user.to_string(), "event_id": event_id(),
        "currency": "EUR", "request_fingerprint": fingerprint(1),
    });
    let body = json!({"coupon_id": coupon_id});
    (hold, Look { rpc: "coupon.GetCoupon", by: By::Buyer(user), body, keys: &["state", "orderId"] })
}

fn order_id(user: UserId) -> String {
    OrderId::derive(user, &RequestId::parse(&fresh()).unwrap()).to_string()
}

fn event_id() -> String {
    EventId::derive(buyer(), &RequestId::parse("staged").unwrap()).to_string()
}

async fn hold_coupons(desk: &Desk) -> Play {
    let (hold, look) = coupon(desk).await;
    let other = with(&hold, "request_fingerprint", fingerprint(2));
    let body = json!({"holds": [hold]});
    Play::new(By::Service, body, look).other(json!({"holds": [other]})).same(&["couponId", "state", "orderId"])
}

async fn release_coupon(desk: &Desk) -> Play {
    let (hold, look) = coupon(desk).await;
    desk.done("coupon.HoldCoupons", By::Service, &json!({"holds": [hold]})).await;
    let body = json!({
        "coupon_id": hold["coupon_id"], "order_id": hold["order_id"], "request_fingerprint": fingerprint(1),
    });
    let other = with(&body, "request_fingerprint", fingerprint(2));
    Play::new(By::Service, body, look).other(other)
}

/// An event of one item that only inventory knows.
struct Shelf {
    event_id: String,
    item_id: String,
}

impl Shelf {
    fn new() -> Self {
        let event_id = event_id();
        let item_id = ItemId::derive(event_id.parse().unwrap(), 0).to_string();
        Self { event_id, item_id }
    }

    async fn staged(desk: &Desk) -> Self {
        let shelf = Self::new();
        desk.done("inventory.StageStock", By::Operator, &shelf.body(1, 10)).await;
        shelf
    }

    /// The request that stages so many units.
    fn body(&self, version: i64, units: i32) -> Value {
        let item = json!({
            "item_id": self.item_id, "total_units": units, "limit_per_buyer": 10, "unit_price": euros(PRICE),
        });
        json!({
            "event_id": self.event_id, "event_version": version, "open_time": at(-60), "close_time": at(3_600),
            "items": [item],
        })
    }

    fn look(&self, keys: &'static [&'static str]) -> Look {
        Look { rpc: "inventory.GetStock", by: By::Service, body: json!({"event_id": self.event_id}), keys }
    }

    fn lines(&self, units: i32) -> Value {
        json!([{"item_id": self.item_id, "units": units}])
    }

    fn reservation(&self) -> Value {
        let user = buyer();
        json!({
            "order_id": order_id(user), "user_id": user.to_string(), "event_id": self.event_id,
            "lines": self.lines(1), "request_fingerprint": fingerprint(1),
        })
    }

    fn order(&self) -> Value {
        json!({"request_id": fresh(), "event_id": self.event_id, "lines": self.lines(1)})
    }
}

async fn stage_stock(desk: &Desk) -> Play {
    let shelf = Shelf::staged(desk).await;
    let (body, other) = (shelf.body(2, 20), shelf.body(2, 30));
    Play::new(By::Operator, body, shelf.look(&["totalUnits"])).other(other)
}

async fn reserve(desk: &Desk) -> Play {
    let shelf = Shelf::staged(desk).await;
    let reservation = shelf.reservation();
    let mut other = with(&reservation, "request_fingerprint", fingerprint(2));
    other["lines"] = shelf.lines(2);
    let play = Play::new(By::Service, json!({"reservations": [reservation]}), shelf.look(&["leftUnits"]));
    play.other(json!({"reservations": [other]})).same(&["units", "unitPrice", "arrival", "commitTime"])
}

async fn release(desk: &Desk) -> Play {
    let shelf = Shelf::staged(desk).await;
    let reservation = shelf.reservation();
    let reserved = desk.done("inventory.Reserve", By::Service, &json!({"reservations": [reservation]})).await;
    let named = json!({
        "event_id": shelf.event_id, "order_id": reservation["order_id"], "request_time": text(&reserved, "requestTime"),
    });
    let other = with(&named, "request_time", at(-5));
    let play = Play::new(By::Service, json!({"reservations": [named]}), shelf.look(&["leftUnits"]));
    play.other(json!({"reservations": [other]}))
}

async fn reconcile(desk: &Desk) -> Play {
    let shelf = Shelf::staged(desk).await;
    let body = json!({"event_id": shelf.event_id});
    Play { changes: false, ..Play::new(By::Operator, body, shelf.look(&["leftUnits", "totalUnits"])) }
}

async fn place_order(desk: &Desk) -> Play {
    let shelf = Shelf::staged(desk).await;
    let body = shelf.order();
    let other = with(&body, "lines", shelf.lines(2));
    Play::new(By::Buyer(buyer()), body, shelf.look(&["leftUnits"]))
        .other(other)
        .same(&["orderId", "arrival", "version"])
}

/// An order that may be paid, of a new buyer.
struct Placed {
    by: By,
    order_id: String,
}

impl Placed {
    async fn new(desk: &Desk) -> Self {
        let by = By::Buyer(buyer());
        let order = Shelf::staged(desk).await.order();
        Self { by, order_id: text(&desk.done("order.PlaceOrder", by, &order).await, "orderId") }
    }

    async fn paid(desk: &Desk) -> Self {
        let placed = Self::new(desk).await;
        desk.done("order.PayOrder", placed.by, &placed.payment("pm_card_ok")).await;
        let read = json!({"order_id": placed.order_id});
        eventually("the order is paid", || async {
            let order = desk.done("order.GetOrder", placed.by, &read).await;
            (text(&order, "state") == "ORDER_STATE_FULFILLED").then_some(())
        })
        .await;
        placed
    }

    fn payment(&self, method: &str) -> Value {
        json!({"order_id": self.order_id, "request_id": fresh(), "payment_method": method})
    }

    fn end(&self) -> Value {
        json!({"order_id": self.order_id, "request_id": fresh()})
    }

    fn look(&self) -> Look {
        let keys = &["state", "version", "paymentAttempts"];
        Look { rpc: "order.GetOrder", by: self.by, body: json!({"order_id": self.order_id}), keys }
    }
}

async fn pay_order(desk: &Desk) -> Play {
    let placed = Placed::new(desk).await;
    let body = placed.payment("pm_card_ok");
    let other = with(&body, "payment_method", "pm_card_declined");
    let play = Play::new(placed.by, body, placed.look()).other(other).same(&["orderId"]);
    Play { settles_as: Some("ORDER_STATE_FULFILLED"), ..play }
}

async fn cancel_order(desk: &Desk) -> Play {
    let placed = Placed::new(desk).await;
    Play::new(placed.by, placed.end(), placed.look()).other(placed.end()).same(&["orderId", "state", "version"])
}

async fn refund_order(desk: &Desk) -> Play {
    let placed = Placed::paid(desk).await;
    let play = Play::new(By::Operator, placed.end(), placed.look()).other(placed.end()).same(&["orderId"]);
    Play { settles_as: Some("ORDER_STATE_REFUNDED"), ..play }
}

async fn handle_webhook(desk: &Desk) -> Play {
    let placed = Placed::paid(desk).await;
    let look = Look {
        rpc: "payment.ListPayments",
        by: placed.by,
        body: json!({"order_id": placed.order_id}),
        keys: &["state", "attempt", "captured"],
    };
    let payments = desk.done(look.rpc, look.by, &look.body).await;
    let notice = json!({
        "type": "charge.captured",
        "key": format!("{}:1", text(&payments, "paymentId")),
        "charge_id": text(&payments, "providerChargeId"),
        "amount_minor": PRICE,
        "currency": "EUR",
        "status": "captured",
    });
    let body = json!({"payload": notice.to_string(), "signature": signature(desk, &notice.to_string())});
    let other = with(&body, "payload", with(&notice, "amount_minor", 1).to_string());
    Play { changes: false, ..Play::new(placed.by, body, look).other(other) }
}

/// The provider's signature of a notice, now.
fn signature(desk: &Desk, payload: &str) -> String {
    let seconds = Timestamp::now().micros() / 1_000_000;
    let mut mac = Hmac::<Sha256>::new_from_slice(desk.mesh.webhook_secret().as_bytes()).unwrap();
    mac.update(format!("{seconds}.{payload}").as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={digits}")
}
