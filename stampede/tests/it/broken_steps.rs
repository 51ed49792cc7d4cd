//! A sale in which every step fails at each point of its transaction, and after which every message is published again.
//! It ends as it would have without, and stays so.
//!
//! The audit proves nothing while something moves: it reads each table at another time, and an order on its way is a
//! breach. So the sale goes on in stages, each as far as it goes by itself. At the end of each, once its steps have all
//! failed, been done again and come to rest, the audit runs.
//!
//! A transaction that is broken off looks like the death of its process to the database, and the process does nothing
//! after it. The process itself goes on, so that all steps fail in one sale; in `faults.rs` processes die.

use crate::{
    history::{History, Repetition, kept},
    sale::{LONG, Sale, eur, fresh, in_us},
    steps::{STEPS, Stage, Step, Way},
    transactions,
};
use sqlx::MySqlPool;
use stampede_proto::{
    coupon::v1::{Coupon, CouponState},
    event::v1::{CancelEventRequest, CreateEventRequest, Event, EventState, Gift, NewItem},
    inventory::v1::GetStockRequest,
    order::v1::{CancelOrderRequest, Order, OrderState, PayOrderRequest, RefundOrderRequest},
};
use stampede_testkit::{
    Break, BreakAt, MeshBuilder, Process, Proxy, Service, World, as_buyer, as_operator, buyer, eventually, heavy,
};
use stampede_vocab::{CouponId, OrderId, PaymentId, RequestId, Timestamp, UserId};
use std::{cell::OnceCell, collections::BTreeMap, fmt, future::ready, rc::Rc, time::Duration};
use tokio::task::{JoinSet, LocalSet};
use tonic::{Code, Status};

/// The points at which each step fails once.
const POINTS: [BreakAt; 3] = BreakAt::ALL;
/// The request by which each buyer places an order.
const PLACE: &str = "place";
/// The item that most buyers order.
const KETTLE: usize = 0;
/// The first item of which there is one unit; there is one such item for each point.
const RARITY: usize = 1;
/// Time until an event opens that is created in the middle of the sale.
const OPENS_IN: Duration = Duration::from_secs(2);

/// The sale, and the proxy between each service and its database.
struct Stand {
    sale: Sale,
    proxies: BTreeMap<Service, Proxy>,
    orders: MySqlPool,
    ledger: MySqlPool,
    /// The event that is to be cancelled.
    scheduled: OnceCell<String>,
}

/// A step that is to fail.
struct Broken {
    step: &'static Step,
    at: BreakAt,
    /// Those of the step, with the ids of its order.
    marks: Vec<String>,
    by: Break,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fails at its {:?}, by {:?}", self.step, self.at, self.marks)
    }
}

/// A buyer whose order goes one way, and fails at one point of each step on it.
struct Traveller {
    way: Way,
    at: BreakAt,
    item: usize,
    user: UserId,
    order: OrderId,
    coupon: OnceCell<Coupon>,
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Retries a call for as long as it is answered with UNAVAILABLE.
async fn persistently<T, F, Fut>(what: &str, call: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    eventually(what, || async {
        match call().await {
            Ok(answer) => Some(answer),
            Err(status) if status.code() == Code::Unavailable => None,
            Err(status) => panic!("{what}: {status}"),
        }
    })
    .await
}

async fn pool(world: &World, service: Service) -> MySqlPool {
    let url = format!("{}?ssl-mode=disabled", world.service_database_url(service));
    MySqlPool::connect(&url).await.unwrap()
}

fn item(title: &str, total_units: i32, limit_per_buyer: i32, gift: Option<Gift>) -> NewItem {
    NewItem { title: title.to_owned(), unit_price: eur(1_999), total_units, limit_per_buyer, gift }
}

/// A request for an event that opens and closes so soon.
fn new_event(opens_in: Duration, closes_in: Duration, items: Vec<NewItem>) -> CreateEventRequest {
    CreateEventRequest {
        request_id: fresh(),
        name: "a sale in which everything fails".to_owned(),
        open_time: in_us(opens_in),
        close_time: in_us(closes_in),
        items,
    }
}

impl Traveller {
    fn new(way: Way, at: BreakAt, item: usize) -> Self {
        let user = buyer();
        let order = OrderId::derive(user, &RequestId::parse(PLACE).unwrap());
        Self { way, at, item, user, order, coupon: OnceCell::new() }
    }

    /// One for each way and point.
    fn all() -> Vec<Rc<Self>> {
        let of_point = |(number, at): (usize, BreakAt)| {
            let item = |way: Way| if way == Way::Rejected { RARITY + number } else { KETTLE };
            Way::OF_ORDERS.map(|way| Rc::new(Self::new(way, at, item(way))))
        };
        POINTS.into_iter().enumerate().flat_map(of_point).collect()
    }

    /// The mark with the ids of this order.
    fn named(&self, mark: &str) -> String {
        let payment = PaymentId::derive(self.order);
        let coupon = self.coupon.get().map(|coupon| coupon.coupon_id.parse::<CouponId>().unwrap());
        mark.replace("{order}", &self.order.to_string())
            .replace("{order_hex}", &hex(self.order.as_bytes()))
            .replace("{payment}", &payment.to_string())
            .replace("{payment_hex}", &hex(payment.as_bytes()))
            .replace("{coupon_hex}", &coupon.map(|id| hex(id.as_bytes())).unwrap_or_default())
    }
}

impl Stand {
    async fn new() -> Self {
        let world = World::prepared().await.unwrap();
        let mut mesh = MeshBuilder::default()
            .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
            .set(Service::Order, "STAMPEDE_ORDER_PAYING_GRACE_MS", 0)
            // A charge whose outcome was not stored waits for twice as long and five seconds.
            .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500);
        let mut proxies = BTreeMap::new();
        for service in Service::ALL {
            let proxy = Proxy::to_url(&world.service_database_url(service)).await.unwrap();
            mesh = mesh.set(service, "STAMPEDE_DATABASE_URL", proxy.url());
            proxies.insert(service, proxy);
        }
        let mesh = mesh.start(&world, Process::all()).await.unwrap();
        let gift = Some(Gift { title: "a mug".to_owned(), total_units: 2 });
        let rarities = POINTS.map(|at| item(&format!("a rarity for {at:?}"), 1, 1, None));
        let items = [item("a kettle", 100, 3, gift)].into_iter().chain(rarities).collect();
        let request = new_event(Duration::from_millis(1_500), LONG, items);
        let event = mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
        let (orders, ledger) = (pool(&world, Service::Order).await, pool(&world, Service::Inventory).await);
        let sale = Sale { world, mesh, event };
        sale.until_open((RARITY, 2)).await;
        Self { sale, proxies, orders, ledger, scheduled: OnceCell::new() }
    }

    /// Makes every step of this stage fail once at each point: for the order that goes its way and fails there, or for
    /// whatever comes first if no order goes it. Not earlier: other stages write some of the same texts.
    fn break_off(&self, stage: Stage, travellers: &[Rc<Traveller>]) -> Vec<Broken> {
        let steps = STEPS.iter().filter(|step| step.stage == stage);
        let points = steps.flat_map(|step| POINTS.map(|at| (step, at)));
        points.map(|(step, at)| self.break_off_at(step, at, travellers)).collect()
    }

    fn break_off_at(&self, step: &'static Step, at: BreakAt, travellers: &[Rc<Traveller>]) -> Broken {
        let traveller = travellers.iter().find(|who| (who.way, who.at) == (step.way, at));
        let named = |mark: &str| traveller.map_or_else(|| mark.to_owned(), |who| who.named(mark));
        let marks: Vec<String> = step.marks.iter().map(|mark| named(mark)).collect();
        let by = self.proxies[&step.service].break_off(&marks, at);
        Broken { step, at, marks, by }
    }

    /// An event is created and then cancelled, another one opens, and a third one closes.
    async fn events(&self, stage: Stage) {
        match stage {
            Stage::Claim => {}
            Stage::Place => self.schedule().await,
            Stage::End => self.cancel_event().await,
            Stage::Pay => self.event_becomes(EventState::Open, LONG).await,
            Stage::Refund => self.event_becomes(EventState::Closed, OPENS_IN + Duration::from_secs(1)).await,
        }
    }

    async fn schedule(&self) {
        let lamp = vec![item("a lamp", 1, 1, None)];
        let event_id = self.create(new_event(Duration::from_secs(300), LONG, lamp)).await.event_id;
        eventually("the event is staged", || async {
            let request = GetStockRequest { event_id: event_id.clone() };
            let stocks = self.sale.mesh.inventory().get_stock(as_operator(request)).await.ok()?.into_inner().stocks;
            (!stocks.is_empty()).then_some(())
        })
        .await;
        self.scheduled.set(event_id).unwrap();
    }

    async fn cancel_event(&self) {
        let request = CancelEventRequest { event_id: self.scheduled.get().unwrap().clone(), paid_orders: 0 };
        persistently("an event is cancelled", || {
            let (mut api, request) = (self.sale.mesh.event(), request.clone());
            async move { api.cancel_event(as_operator(request)).await }
        })
        .await;
    }

    /// Creates an event, and waits for its time: an audit meanwhile would find it late, or moving.
    async fn event_becomes(&self, state: EventState, closes_in: Duration) {
        let lamp = vec![item("a lamp", 1, 1, None)];
        let event = self.create(new_event(OPENS_IN, closes_in, lamp)).await;
        self.sale.until_event(&event.event_id, state).await;
    }

    async fn create(&self, request: CreateEventRequest) -> Event {
        let created = persistently("an event is created", || {
            let (mut api, request) = (self.sale.mesh.event(), request.clone());
            async move { api.create_event(as_operator(request)).await }
        });
        created.await.into_inner().event.unwrap()
    }

    /// Does what the buyer or the operator does in this stage, and waits for its outcome.
    async fn travel(&self, who: &Traveller, stage: Stage) {
        match (stage, who.way) {
            (Stage::Claim, way) if way.has_coupon() => self.claim(who).await,
            (Stage::Place, _) => self.place(who).await,
            (Stage::End, Way::Cancelled) => {
                self.cancel(who).await;
                self.coupon_is(who, CouponState::Issued).await;
            }
            (Stage::End, Way::Expired) => {
                self.time_is_over(who).await;
                self.until(who, OrderState::Expired).await;
                self.coupon_is(who, CouponState::Issued).await;
            }
            (Stage::Pay, Way::Refunded) => {
                self.pay(who, "pm_card_ok").await;
                self.until(who, OrderState::Fulfilled).await;
                self.coupon_is(who, CouponState::Used).await;
            }
            (Stage::Pay, Way::Declined) => {
                self.pay(who, "pm_card_declined").await;
                self.until(who, OrderState::AwaitingPayment).await;
            }
            (Stage::Pay, Way::Late) => {
                self.pay_late(who).await;
                self.until(who, OrderState::Fulfilled).await;
            }
            (Stage::Pay, Way::Rejected) => {
                self.pay_late(who).await;
                self.until(who, OrderState::Refunded).await;
            }
            (Stage::Refund, Way::Refunded) => {
                self.refund(who).await;
                self.coupon_is(who, CouponState::Issued).await;
            }
            (Stage::Refund, Way::Declined) => {
                self.pay(who, "pm_card_ok").await;
                self.until(who, OrderState::Fulfilled).await;
            }
            // A late payment that was refunded has other messages to repeat than one that was not.
            (Stage::Refund, Way::Late) if who.at != BreakAt::Write => self.refund(who).await,
            _ => {}
        }
    }

    async fn claim(&self, who: &Traveller) {
        let coupon = self.sale.claim(who.user).await;
        who.coupon.set(coupon).unwrap();
    }

    async fn place(&self, who: &Traveller) {
        let lines = [(who.item, 1)];
        let coupon_id = who.coupon.get().map_or("", |coupon| coupon.coupon_id.as_str());
        let place = || self.sale.place_as(who.user, PLACE, &lines, coupon_id);
        persistently("an order is placed", place).await;
    }

    async fn until(&self, who: &Traveller, state: OrderState) {
        let order = Order { order_id: who.order.to_string(), ..Order::default() };
        self.sale.until(who.user, &order, state).await;
    }

    async fn pay(&self, who: &Traveller, card: &str) {
        let (order_id, request_id, payment_method) = (who.order.to_string(), card.to_owned(), card.to_owned());
        let request = PayOrderRequest { order_id, request_id, payment_method };
        persistently("a payment is begun", || {
            let (mut api, request) = (self.sale.mesh.order(), as_buyer(who.user, request.clone()));
            async move { api.pay_order(request).await }
        })
        .await;
    }

    async fn cancel(&self, who: &Traveller) {
        let request = CancelOrderRequest { order_id: who.order.to_string(), request_id: "cancel".to_owned() };
        persistently("an order is cancelled", || {
            let (mut api, request) = (self.sale.mesh.order(), as_buyer(who.user, request.clone()));
            async move { api.cancel_order(request).await }
        })
        .await;
    }

    async fn refund(&self, who: &Traveller) {
        let request = RefundOrderRequest { order_id: who.order.to_string(), request_id: "refund".to_owned() };
        persistently("an order is refunded", || {
            let (mut api, request) = (self.sale.mesh.order(), as_operator(request.clone()));
            async move { api.refund_order(request).await }
        })
        .await;
        self.until(who, OrderState::Refunded).await;
    }

    /// Pays in time, and delays the storage of the answer until the order has expired and its units are released, or
    /// sold to somebody else.
    async fn pay_late(&self, who: &Traveller) {
        let marks = ["PaymentApproved".to_owned(), PaymentId::derive(who.order).to_string()];
        let late = self.proxies[&Service::Payment].keep_breaking(&marks, BreakAt::Write);
        self.pay(who, "pm_card_ok").await;
        eventually("the provider has the money", || ready((late.count() > 0).then_some(()))).await;
        self.time_is_over(who).await;
        self.until(who, OrderState::Expired).await;
        eventually("the units are back", || async { self.are_units_back(who).await.then_some(()) }).await;
        if who.way == Way::Rejected {
            let (other, lines) = (buyer(), [(who.item, 1)]);
            let bought = || async { self.sale.place_as(other, PLACE, &lines, "").await.ok() };
            eventually("somebody else has the unit", bought).await;
        }
        late.mend();
    }

    /// Sets the payment deadline to now.
    async fn time_is_over(&self, who: &Traveller) {
        let end = sqlx::query("UPDATE orders SET pay_deadline_us = ? WHERE id = ?");
        let ended = end.bind(Timestamp::now().micros()).bind(who.order.as_bytes()).execute(&self.orders).await.unwrap();
        assert_eq!(ended.rows_affected(), 1, "{}", who.order);
    }

    async fn are_units_back(&self, who: &Traveller) -> bool {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM ledger WHERE order_id = ? AND state = 'RELEASED'");
        let released: i64 = count.bind(who.order.as_bytes()).fetch_one(&self.ledger).await.unwrap();
        released == 1
    }

    async fn coupon_is(&self, who: &Traveller, state: CouponState) {
        self.sale.until_coupon(who.user, who.coupon.get().unwrap(), state).await;
    }
}

/// Goes through one stage with all ways at once.
async fn go(stand: &Rc<Stand>, travellers: &[Rc<Traveller>], stage: Stage) {
    let at_once = async {
        let mut going = JoinSet::new();
        for who in travellers {
            let (stand, who) = (stand.clone(), who.clone());
            going.spawn_local(async move { stand.travel(&who, stage).await });
        }
        let stand = stand.clone();
        going.spawn_local(async move { stand.events(stage).await });
        while let Some(gone) = going.join_next().await {
            gone.unwrap();
        }
    };
    LocalSet::new().run_until(at_once).await;
}

/// Audits once all of these have failed. The audit waits until whatever they have left to be done is done.
async fn audit_after(sale: &Sale, failed: &[Broken]) {
    for one in failed {
        eventually(&one.to_string(), || ready((one.by.count() == 1).then_some(()))).await;
    }
    let failed: Vec<_> = failed.iter().map(ToString::to_string).collect();
    let failed = failed.join("\n");
    sale.audit_after(&format!("these steps, of which each was done again:\n{failed}\n"));
    println!("audited after:\n{failed}");
}

/// Goes through all stages, with each step failing at each point, and audits after each stage.
async fn everything_fails(stand: &Rc<Stand>) {
    let (travellers, mut audited) = (Traveller::all(), 0);
    for stage in Stage::ALL {
        let broken = stand.break_off(stage, &travellers);
        go(stand, &travellers, stage).await;
        audit_after(&stand.sale, &broken).await;
        audited += broken.len();
    }
    assert_eq!(audited, STEPS.len() * POINTS.len(), "a step is in no stage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_may_fail_at_any_point_and_every_message_may_come_again() {
    let _permit = heavy().await;
    let stand = Rc::new(Stand::new().await);
    everything_fails(&stand).await;
    let without = transactions::without_failure(&stand.sale.mesh).await;
    assert!(without.is_empty(), "no step is part of these: {without:?}");

    let world = &stand.sale.world;
    let (history, before) = (History::of(world), kept(world).await);
    for repetition in Repetition::ALL {
        history.publish_again(world, repetition).await;
        stand.sale.audit_after(&format!("everything was published again: {repetition:?}"));
        assert_eq!(kept(world).await, before, "published again: {repetition:?}");
    }
    let stand = Rc::into_inner(stand).unwrap();
    stand.sale.mesh.stop().await.unwrap();
}
