//! Seeded histories of one event each beside a real order service, while processes of both are killed: orders placed,
//! repeated, cancelled and left to expire, units taken for orders that are never written, a Redis that is lost or
//! rolled back. Whatever happens: what was acknowledged is written, an order has its units until it ends and not
//! longer, nothing is over the total or the limit, and at the end all is back.
//!
//! `STAMPEDE_TEST_ORDER_HISTORIES=1000` runs so many of them. The kills are not part of a seed.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    event_keys::EventKeys,
    orders::{place, with_order},
    random::Random,
    runs::Runs,
    sale::{Order, Sale, retire, seconds_from_now, units_in_ledger},
};
use futures_util::{StreamExt, stream};
use stampede_db::Database;
use stampede_lua::Keys;
use stampede_proto::{
    inventory::v1::{self as proto, inventory_service_client::InventoryServiceClient},
    order::v1::{CancelOrderRequest, order_service_client::OrderServiceClient},
    r#type::v1::Money,
};
use stampede_testkit::{AdminRedis, Mesh, Service, World, as_buyer, as_operator, as_order_service, buyer, heavy};
use stampede_vocab::{EventId, ItemId, OrderId, RequestId, UserId};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use uuid::Uuid;

const HISTORIES: u64 = 32;
const AT_A_TIME: usize = 16;
const STEPS: usize = 12;
const REPLICAS: usize = 2;
const ITEMS: usize = 2;
/// How long an order can be paid, which nobody does here.
const PAY_WINDOW_MS: u64 = 2_000;
/// How many kills come early, each after so long.
const FIRST_KILLS: (usize, Duration) = (2, Duration::from_millis(1_500));
/// Time before each of the later ones: a group of consumers takes six seconds to go on without one of them.
const LATER_KILLS: Duration = Duration::from_secs(15);
/// Longest wait until all is as it should be.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What all histories share: ways to the services and what these have written.
struct Ground {
    orders_api: OrderServiceClient<Channel>,
    replicas: Vec<InventoryServiceClient<Channel>>,
    orders: Database,
    ledger: Database,
    conn: AdminRedis,
    keys: Keys,
}

impl Ground {
    async fn of(world: &World, mesh: &Mesh) -> Self {
        let replicas = mesh.replica_channels(Service::Inventory);
        Self {
            orders_api: mesh.order(),
            replicas: replicas.into_iter().map(InventoryServiceClient::new).collect(),
            orders: world.database(Service::Order).await.unwrap(),
            ledger: world.database(Service::Inventory).await.unwrap(),
            conn: world.admin_redis().await.unwrap(),
            keys: Keys::new(world.redis_key_prefix()),
        }
    }
}

/// An order of the model.
struct Known {
    order: Order,
    request_id: String,
    /// Whether it was acknowledged, so that it is written.
    is_placed: bool,
}

/// What a history comes to.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// What is open has its units, and nothing else.
    Settled,
    /// Every order has ended, and nothing is taken.
    AllBack,
}

/// What is committed of an item in all.
type Committed = BTreeMap<ItemId, i32>;

/// One event and what the model knows of it.
struct History<'g> {
    ground: &'g Ground,
    random: Random,
    event_id: EventId,
    shelf: Vec<proto::StagedItem>,
    buyers: Vec<UserId>,
    known: Vec<Known>,
    keys: EventKeys,
    steps: Vec<String>,
}

impl<'g> History<'g> {
    async fn begin(ground: &'g Ground, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let event_id = EventId::derive(buyer(), &RequestId::parse("history").unwrap());
        let shelf: Vec<_> = (0..ITEMS).map(|index| item(event_id, index, &mut random)).collect();
        let request = proto::StageStockRequest {
            event_id: event_id.to_string(),
            event_version: 1,
            open_time: Some(seconds_from_now(-60)),
            close_time: Some(seconds_from_now(3_600)),
            items: shelf.clone(),
            cancel_time: None,
        };
        // A replica may just have been killed.
        while ground.replicas[0].clone().stage_stock(as_operator(request.clone())).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        Self {
            ground,
            random,
            event_id,
            shelf,
            buyers: (0..4).map(|_| buyer()).collect(),
            known: Vec::new(),
            keys: EventKeys::new(ground.conn.clone(), &ground.keys, event_id, ITEMS),
            steps: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            let done = match self.random.below(12) {
                0..=4 => self.places().await,
                5 | 6 => self.repeats().await,
                7 => self.takes_units_and_writes_nothing().await,
                8 | 9 => self.cancels().await,
                10 => self.loses_redis().await,
                _ => self.rolls_back().await,
            };
            done.and(self.is_within_bounds().await).map_err(|fault| self.told(&fault))?;
        }
        for goal in [Goal::Settled, Goal::AllBack] {
            self.reaches(goal).await.map_err(|fault| self.told(&fault))?;
        }
        retire(&self.ground.ledger, self.event_id).await;
        self.keys.lose().await;
        Ok(())
    }

    fn told(&self, fault: &str) -> String {
        format!("{fault}\n  shelf {:?}\n  {}", self.shelf, self.steps.join("\n  "))
    }

    /// A new order of a random buyer, for one item or both.
    fn new_order(&mut self) -> usize {
        let number = self.known.len();
        let request_id = number.to_string();
        let buyer = self.buyers[self.random.below(self.buyers.len())];
        let (first, both) = (self.random.below(ITEMS), self.random.below(4) == 0);
        let lines = (0..ITEMS).filter(|index| both || *index == first);
        let lines = lines.map(|index| (ItemId::derive(self.event_id, index), self.random.between(1, 2))).collect();
        let order_id = OrderId::derive(buyer, &RequestId::parse(&request_id).unwrap());
        let order = Order { order_id, buyer, event_id: self.event_id, lines };
        self.known.push(Known { order, request_id, is_placed: false });
        number
    }

    fn any(&mut self) -> Option<usize> {
        (!self.known.is_empty()).then(|| self.random.below(self.known.len()))
    }

    async fn places(&mut self) -> Result<(), String> {
        let index = self.new_order();
        self.place(index).await
    }

    async fn repeats(&mut self) -> Result<(), String> {
        let Some(index) = self.any() else { return Ok(()) };
        self.place(index).await
    }

    /// Whoever is refused, or not answered, may ask again; whoever is answered has an order.
    async fn place(&mut self, index: usize) -> Result<(), String> {
        let Known { order, request_id, is_placed } = &mut self.known[index];
        let placed = place(self.ground.orders_api.clone(), order.clone(), request_id.clone()).await;
        let told = placed.as_ref().map(|placed| placed.state()).map_err(|status| status.message().to_owned());
        self.steps.push(format!("order {index} for {:?} is placed: {told:?}", order.lines));
        if placed.is_err() {
            return Ok(());
        }
        *is_placed = true;
        match state(&self.ground.orders, order).await {
            Some(_) => Ok(()),
            None => Err(format!("order {index} was acknowledged and is not written")),
        }
    }

    /// The units of an order are taken, and whoever was to write it is gone. To the order service it is another body.
    async fn takes_units_and_writes_nothing(&mut self) -> Result<(), String> {
        let index = self.new_order();
        let reservation = self.known[index].order.reservation();
        let request = proto::ReserveRequest { reservations: vec![reservation] };
        let mut replica = self.ground.replicas[self.random.below(REPLICAS)].clone();
        let results = replica.reserve(as_order_service(request)).await.map(|response| response.into_inner().results);
        self.steps.push(format!("order {index} takes units and is not written: {results:?}"));
        Ok(())
    }

    async fn cancels(&mut self) -> Result<(), String> {
        let Some(index) = self.any() else { return Ok(()) };
        let order = &self.known[index].order;
        let request = CancelOrderRequest { order_id: order.order_id.to_string(), request_id: "cancel".into() };
        let cancelled = self.ground.orders_api.clone().cancel_order(as_buyer(order.buyer, request)).await;
        self.steps.push(format!("order {index} is cancelled: {}", cancelled.is_ok()));
        Ok(())
    }

    async fn loses_redis(&mut self) -> Result<(), String> {
        self.keys.lose().await;
        self.steps.push("redis is lost".into());
        Ok(())
    }

    /// Takes a copy of Redis, or goes back to the one that was taken before.
    async fn rolls_back(&mut self) -> Result<(), String> {
        if self.keys.is_copied() {
            self.keys.roll_back(true).await;
            self.steps.push("redis is rolled back to the copy".into());
        } else {
            self.keys.copy().await;
            self.steps.push("a copy of redis is taken".into());
        }
        Ok(())
    }

    /// No item is over its total and no buyer over the limit.
    async fn is_within_bounds(&self) -> Result<(), String> {
        let rows = self.ledger_rows().await;
        for item in &self.shelf {
            let item_id: ItemId = item.item_id.parse().unwrap();
            let mut by_buyer: BTreeMap<&UserId, i32> = BTreeMap::new();
            for (_, user, units) in rows.iter().filter(|(of, _, _)| *of == item_id) {
                *by_buyer.entry(user).or_default() += units;
            }
            if by_buyer.values().sum::<i32>() > item.total_units {
                return Err(format!("{item_id} is oversold"));
            }
            if by_buyer.values().any(|units| *units > item.limit_per_buyer) {
                return Err(format!("a buyer of {item_id} is over the limit"));
            }
        }
        Ok(())
    }

    /// What the ledger has committed: item, buyer, units.
    async fn ledger_rows(&self) -> Vec<(ItemId, UserId, i32)> {
        let query = "SELECT item_id, user_id, units FROM ledger WHERE event_id = ? AND state = 'COMMITTED'";
        let mut conn = self.ground.ledger.acquire().await.unwrap();
        let rows: Vec<(Uuid, Uuid, i32)> =
            sqlx::query_as(query).bind(self.event_id.uuid()).fetch_all(&mut *conn).await.unwrap();
        rows.into_iter().map(|(item, user, units)| (ItemId::from_uuid(item), UserId::from_uuid(user), units)).collect()
    }

    async fn committed(&self) -> Committed {
        let mut committed: Committed = (0..ITEMS).map(|index| (ItemId::derive(self.event_id, index), 0)).collect();
        for (item, _, units) in self.ledger_rows().await {
            *committed.entry(item).or_default() += units;
        }
        committed
    }

    /// Fails unless every order that is open has its units, every other one has none, and Redis shows it.
    async fn is_settled(&self) -> Result<(), String> {
        for (index, known) in self.known.iter().enumerate() {
            let state = state(&self.ground.orders, &known.order).await;
            if known.is_placed && state.is_none() {
                return Err(format!("order {index} was acknowledged and is gone"));
            }
            let all = known.order.lines.iter().map(|(_, units)| i64::from(*units)).sum();
            let wanted: i64 = if state.as_deref() == Some("AWAITING_PAYMENT") { all } else { 0 };
            let has = units_in_ledger(&self.ground.ledger, &known.order).await;
            if has != wanted {
                return Err(format!("order {index} is {state:?} and has {has} units"));
            }
        }
        self.is_shown(&self.committed().await).await
    }

    /// Fails unless everything has come back: nobody has paid.
    async fn is_all_back(&self) -> Result<(), String> {
        let committed = self.committed().await;
        if committed.values().any(|units| *units > 0) {
            return Err(format!("still committed: {committed:?}"));
        }
        self.is_shown(&committed).await
    }

    /// Redis shows what is committed, and nothing on hold.
    async fn is_shown(&self, committed: &Committed) -> Result<(), String> {
        let request = proto::GetStockRequest { event_id: self.event_id.to_string() };
        let response = self.ground.replicas[REPLICAS - 1].clone().get_stock(request).await;
        let stocks = response.map_err(|status| status.message().to_owned())?.into_inner().stocks;
        for stock in &stocks {
            let units = committed[&stock.item_id.parse::<ItemId>().unwrap()];
            let shown = (stock.left_units, stock.committed_units, stock.held_units);
            if shown != (stock.total_units - units, units, 0) {
                return Err(format!("redis shows (left, committed, held) {shown:?}, and {units} are committed"));
            }
        }
        Ok(())
    }

    /// Waits until it is so.
    async fn reaches(&self, goal: Goal) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let reached = match goal {
                Goal::Settled => self.is_settled().await,
                Goal::AllBack => self.is_all_back().await,
            };
            match reached {
                Ok(()) => return Ok(()),
                Err(fault) if started.elapsed() > SETTLED_WITHIN => return Err(format!("not {goal:?}: {fault}")),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// An item of a few units.
fn item(event_id: EventId, index: usize, random: &mut Random) -> proto::StagedItem {
    proto::StagedItem {
        item_id: ItemId::derive(event_id, index).to_string(),
        total_units: random.between(1, 6),
        limit_per_buyer: random.between(1, 2),
        gift_total_units: random.between(0, 2),
        unit_price: Some(Money { minor_units: 1_999, currency: "EUR".into() }),
        ..proto::StagedItem::default()
    }
}

/// The state of an order; none if it was never written.
async fn state(orders: &Database, order: &Order) -> Option<String> {
    let query = sqlx::query_scalar("SELECT state FROM orders WHERE id = ?").bind(order.order_id.uuid());
    query.fetch_optional(&mut *orders.acquire().await.unwrap()).await.unwrap()
}

async fn play(ground: &Ground, seed: u64) -> (u64, Result<(), String>) {
    (seed, History::begin(ground, seed).await.run().await)
}

async fn play_all(ground: &Ground, runs: &mut Runs) {
    let played = stream::iter(runs.seeds().map(|seed| play(ground, seed)));
    let mut played = played.buffer_unordered(AT_A_TIME);
    while let Some((seed, outcome)) = played.next().await {
        runs.note(seed, outcome);
        if runs.is_enough() {
            return;
        }
    }
}

/// Kills the order service and a replica of the inventory in turn, and starts each again.
async fn kill_in_turn(mesh: &mut Mesh) {
    for (number, service) in [Service::Order, Service::Inventory].into_iter().cycle().enumerate() {
        let (first_kills, pause) = FIRST_KILLS;
        sleep(if number < first_kills { pause } else { LATER_KILLS }).await;
        mesh.kill_9(service).unwrap();
        mesh.restart(service).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_what_is_placed_is_kept_and_the_rest_comes_back() {
    let _permit = heavy().await;
    let test = "whoever_dies_what_is_placed_is_kept_and_the_rest_comes_back";
    let mut runs = Runs::of(test, "STAMPEDE_TEST_ORDER_HISTORIES", HISTORIES);
    let mesh = with_order().replicas(Service::Inventory, REPLICAS);
    let mesh = mesh.set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW_MS);
    let mut sale = Sale::with(mesh, &[Service::Order]).await;
    let ground = Ground::of(&sale.world, &sale.mesh).await;
    tokio::select! {
        () = play_all(&ground, &mut runs) => {}
        () = kill_in_turn(&mut sale.mesh) => {}
    }
    runs.end();
}
