//! Seeded histories of one event each against a plain model: reservations, repeats, duplicates at once, other requests
//! with the id of an order, processes that die between script and commit or between commit and answer, requests taken
//! back, cancellations, and a Redis that is lost, rolled back to an old copy, or repaired, over one to three replicas.
//! Whatever happens: nothing is sold twice, nobody is over the limit, no two orders have one place of arrival, what was
//! answered is in the ledger, and at the end nothing is stuck.
//!
//! `STAMPEDE_TEST_HISTORIES=10000` runs so many of them, `STAMPEDE_TEST_SEED=7` begins with another seed. A failure
//! shows its steps and how to play it again.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    event_keys::EventKeys,
    orders::take_back_unanswered,
    random::Random,
    runs::{self, Runs},
    sale::{Order, Sale, Step as Said, retire, seconds_from_now},
    stand::as_the_script_takes_it,
};
use futures_util::{StreamExt, future::join_all, stream};
use stampede_lua::{Redis, RedisConfig, stock::Stock};
use stampede_proto::{
    inventory::v1::{
        self as proto, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
    },
    r#type::v1::Money,
};
use stampede_testkit::{AdminRedis, Service, buyer, eventually, heavy};
use stampede_vocab::{EventId, ItemId, OrderId, RequestId, UserId};
use std::{collections::BTreeMap, time::Duration};
use tonic::transport::Channel;

const HISTORIES: u64 = 50;
const AT_A_TIME: usize = 24;
const STEPS: usize = 14;
/// Most replicas; a third of the seeds each is played on one, two and three.
const REPLICAS: usize = 3;
/// How often a request is sent at once.
const DUPLICATES: usize = 3;
const ITEMS: usize = 2;

/// What all histories on so many replicas share.
struct Ground {
    sale: Sale,
    replicas: Vec<InventoryServiceClient<Channel>>,
    stock: Stock,
    redis: Redis,
    conn: AdminRedis,
}

impl Ground {
    async fn new(replicas: usize) -> Self {
        let sale = Sale::replicated(replicas).await;
        let (url, key_prefix) = (sale.world.redis_url().to_owned(), sale.world.redis_key_prefix());
        let redis = Redis::connect(RedisConfig { url, key_prefix }).await.unwrap();
        let replicas = sale.mesh.replica_channels(Service::Inventory);
        Self {
            replicas: replicas.into_iter().map(InventoryServiceClient::new).collect(),
            stock: Stock::new(redis.clone()),
            redis,
            conn: sale.world.admin_redis().await.unwrap(),
            sale,
        }
    }
}

/// An order of the model.
struct Known {
    order: Order,
    /// The answer, once it was reserved; the units are its own until it ends.
    reserved: Option<proto::Reserved>,
    /// Whether its units went back by its message, so that a repeat may not have them.
    ended: bool,
    /// What was asked and not taken back.
    asked: Vec<proto::Reserved>,
    /// Whether it was asked for with another body, whose hold an unsettled Redis may still have.
    asked_otherwise: bool,
}

/// One event and what the model knows of it.
struct History<'g> {
    ground: &'g Ground,
    random: Random,
    event_id: EventId,
    items: Vec<proto::StagedItem>,
    buyers: Vec<UserId>,
    orders: Vec<Known>,
    keys: EventKeys,
    /// Which order each place of arrival was given to.
    arrivals: BTreeMap<i64, usize>,
    /// Whether a copy was put back by hand, after which places of arrival may be given again.
    arrivals_repeat: bool,
    /// Whether Redis may know less or more than the ledger, so that refusals need not be right.
    disturbed: bool,
    steps: Vec<String>,
}

impl<'g> History<'g> {
    async fn begin(ground: &'g Ground, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let event_id = EventId::derive(buyer(), &RequestId::parse("history").unwrap());
        let item = |index: usize, random: &mut Random| proto::StagedItem {
            item_id: ItemId::derive(event_id, index).to_string(),
            total_units: random.between(1, 6),
            limit_per_buyer: random.between(1, 2),
            gift_total_units: random.between(0, 2),
            unit_price: Some(Money { minor_units: 1_999, currency: "EUR".into() }),
            ..proto::StagedItem::default()
        };
        let items: Vec<_> = (0..ITEMS).map(|index| item(index, &mut random)).collect();
        let request = proto::StageStockRequest {
            event_id: event_id.to_string(),
            event_version: 1,
            open_time: Some(seconds_from_now(-60)),
            close_time: Some(seconds_from_now(3_600)),
            items: items.clone(),
            cancel_time: None,
        };
        runs::stage_once_there_is_room(&ground.sale.api(), request).await;
        Self {
            ground,
            random,
            event_id,
            items,
            buyers: (0..4).map(|_| buyer()).collect(),
            orders: Vec::new(),
            keys: EventKeys::new(ground.conn.clone(), ground.redis.keys(), event_id, ITEMS),
            arrivals: BTreeMap::new(),
            arrivals_repeat: false,
            disturbed: false,
            steps: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            let done = match self.random.below(15) {
                0..=4 => self.place().await,
                5 | 6 => self.repeat().await,
                7 => self.duplicates().await,
                8 => self.asks_otherwise().await,
                9 => self.dies_before_the_commit().await,
                10 => self.takes_back().await,
                11 => self.cancels().await,
                12 => self.loses_redis().await,
                13 => self.rolls_back().await,
                _ => self.repairs().await,
            };
            done.map_err(|fault| self.told(&fault))?;
        }
        self.settles().await.map_err(|fault| self.told(&fault))?;
        self.ledger_has_all().await.map_err(|fault| self.told(&fault))?;
        retire(&self.ground.sale.inventory_db, self.event_id).await;
        self.keys.lose().await;
        Ok(())
    }

    fn told(&self, fault: &str) -> String {
        format!("{fault}\n  items {:?}\n  {}", self.items, self.steps.join("\n  "))
    }

    async fn place(&mut self) -> Result<(), String> {
        let index = self.new_order();
        self.reserve(index).await
    }

    async fn repeat(&mut self) -> Result<(), String> {
        let Some(index) = self.any_order() else { return Ok(()) };
        self.reserve(index).await
    }

    /// A new order of a random buyer, for one item or both.
    fn new_order(&mut self) -> usize {
        let number = self.orders.len();
        let buyer = self.buyers[self.random.below(self.buyers.len())];
        let first = self.random.below(ITEMS);
        let both = self.random.below(4) == 0;
        let lines = (0..ITEMS).filter(|index| both || *index == first);
        let lines = lines.map(|index| (ItemId::derive(self.event_id, index), self.random.between(1, 2))).collect();
        let order_id = OrderId::derive(buyer, &RequestId::parse(&format!("{number}")).unwrap());
        let order = Order { order_id, buyer, event_id: self.event_id, lines };
        self.orders.push(Known { order, reserved: None, ended: false, asked: Vec::new(), asked_otherwise: false });
        number
    }

    fn any_order(&mut self) -> Option<usize> {
        (!self.orders.is_empty()).then(|| self.random.below(self.orders.len()))
    }

    async fn ask(&self, replica: usize, reservation: proto::Reservation) -> Outcome {
        let request = proto::ReserveRequest { reservations: vec![reservation] };
        let replicas = &self.ground.replicas;
        let answer = runs::reserve_once_there_is_room(&replicas[replica % replicas.len()], request).await;
        answer.results.into_iter().next().unwrap().outcome.unwrap()
    }

    async fn reserve(&mut self, index: usize) -> Result<(), String> {
        let replica = self.random.below(REPLICAS);
        let outcome = self.ask(replica, self.orders[index].order.reservation()).await;
        self.steps.push(format!("{} asks {replica}: {outcome:?}", self.name(index)));
        self.note(index, outcome)
    }

    async fn duplicates(&mut self) -> Result<(), String> {
        let index = self.new_order();
        let reservation = self.orders[index].order.reservation();
        let outcomes = join_all((0..DUPLICATES).map(|replica| self.ask(replica, reservation.clone()))).await;
        self.steps.push(format!("{} asks all at once: {outcomes:?}", self.name(index)));
        // Whichever came first, the others are repeats of it or were refused as it was.
        let (reserved, refused): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|outcome| matches!(outcome, Outcome::Reserved(_)));
        for outcome in reserved.into_iter().chain(refused) {
            self.note(index, outcome)?;
        }
        Ok(())
    }

    /// Another request with the id of an order that has or had units.
    async fn asks_otherwise(&mut self) -> Result<(), String> {
        let Some(index) = self.any_order() else { return Ok(()) };
        let known = &mut self.orders[index];
        if known.reserved.is_none() && !known.ended {
            return Ok(());
        }
        known.asked_otherwise = true;
        let other = proto::Reservation { request_fingerprint: vec![2; 32], ..known.order.reservation() };
        let replica = self.random.below(REPLICAS);
        let outcome = self.ask(replica, other).await;
        self.steps.push(format!("{} asks {replica} with another body: {outcome:?}", self.name(index)));
        self.check_reused(&outcome)
    }

    /// The body is compared before anything else, also of an order that has ended; but what Redis refuses does not come
    /// to the ledger if Redis has lost the buyer.
    fn check_reused(&self, outcome: &Outcome) -> Result<(), String> {
        let Outcome::Refusal(refusal) = outcome else { return Err("another body got the units of an order".into()) };
        match refusal.reason() {
            RefusalReason::RequestIdReused => Ok(()),
            RefusalReason::NotReady | RefusalReason::SoldOut | RefusalReason::LimitReached if self.disturbed => Ok(()),
            reason => Err(format!("another body is refused for another reason: {reason:?}")),
        }
    }

    /// Compares an answer with the model, and lets the model follow it.
    fn note(&mut self, index: usize, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Reserved(reserved) => self.note_reserved(index, reserved),
            Outcome::Refusal(refusal) => self.check_refusal(index, &refusal),
        }
    }

    fn note_reserved(&mut self, index: usize, reserved: proto::Reserved) -> Result<(), String> {
        self.note_arrival(index, reserved.arrival)?;
        let known = &mut self.orders[index];
        if known.ended {
            return Err("an order that has ended got units".into());
        }
        if let Some(first) = &known.reserved {
            let same = (first.arrival, &first.lines, first.commit_time)
                == (reserved.arrival, &reserved.lines, reserved.commit_time);
            known.asked.push(reserved);
            return if same { Ok(()) } else { Err("a repeat got another answer".into()) };
        }
        known.reserved = Some(reserved.clone());
        known.asked.push(reserved);
        self.check_totals()
    }

    /// No two orders have one place of arrival.
    fn note_arrival(&mut self, index: usize, arrival: i64) -> Result<(), String> {
        let owner = *self.arrivals.entry(arrival).or_insert(index);
        if owner == index || self.arrivals_repeat {
            return Ok(());
        }
        Err(format!("place of arrival {arrival} was given to order {owner} and to order {index}"))
    }

    /// Nothing is sold twice, and nobody has more than the limit.
    fn check_totals(&self) -> Result<(), String> {
        for item in &self.items {
            let by_buyer = self.units_by_buyer(&item.item_id);
            if by_buyer.values().sum::<i32>() > item.total_units {
                return Err(format!("{} is oversold", item.item_id));
            }
            if by_buyer.values().any(|units| *units > item.limit_per_buyer) {
                return Err(format!("a buyer of {} is over the limit", item.item_id));
            }
            if self.lines_of(&item.item_id).map(|(_, line)| line.gift_units).sum::<i32>() > item.gift_total_units {
                return Err(format!("gifts of {} are oversold", item.item_id));
            }
        }
        Ok(())
    }

    /// A refusal is right while Redis knows what the ledger knows.
    fn check_refusal(&self, index: usize, refusal: &proto::Refusal) -> Result<(), String> {
        let known = &self.orders[index];
        match refusal.reason() {
            RefusalReason::Released if known.ended => Ok(()),
            _ if known.ended && !self.disturbed => Err("an order that has ended is refused for another reason".into()),
            _ if known.reserved.is_some() && !self.disturbed => Err("a repeat was refused".into()),
            RefusalReason::NotReady if self.disturbed => Ok(()),
            RefusalReason::RequestIdReused if self.disturbed && known.asked_otherwise => Ok(()),
            RefusalReason::SoldOut | RefusalReason::LimitReached if self.disturbed => Ok(()),
            RefusalReason::SoldOut | RefusalReason::LimitReached if !self.fits(&known.order) => Ok(()),
            reason => Err(format!("refused although there are units: {reason:?}")),
        }
    }

    fn fits(&self, order: &Order) -> bool {
        order.lines.iter().all(|(item_id, units)| {
            let item_id = item_id.to_string();
            let item = self.items.iter().find(|item| item.item_id == item_id).expect("one of two");
            let by_buyer = self.units_by_buyer(&item_id);
            let has = by_buyer.get(&order.buyer.to_string()).copied().unwrap_or(0);
            by_buyer.values().sum::<i32>() + units <= item.total_units && has + units <= item.limit_per_buyer
        })
    }

    fn lines_of<'a>(&'a self, item_id: &'a str) -> impl Iterator<Item = (&'a Order, &'a proto::ReservedLine)> {
        self.orders.iter().flat_map(move |known| {
            let lines = known.reserved.iter().flat_map(|reserved| &reserved.lines);
            lines.filter(move |line| line.item_id == item_id).map(|line| (&known.order, line))
        })
    }

    fn units_by_buyer(&self, item_id: &str) -> BTreeMap<String, i32> {
        let mut units = BTreeMap::new();
        for (order, line) in self.lines_of(item_id) {
            *units.entry(order.buyer.to_string()).or_default() += line.units;
        }
        units
    }

    /// The script grants, and whoever asked is gone before the ledger hears of it.
    async fn dies_before_the_commit(&mut self) -> Result<(), String> {
        let index = self.new_order();
        let reservation = as_the_script_takes_it(&self.orders[index].order);
        let decision = self.ground.stock.reserve(self.event_id, &[reservation]).await.unwrap();
        self.steps.push(format!("{} dies before the commit: {decision:?}", self.name(index)));
        self.disturbed = true;
        Ok(())
    }

    /// Whoever asked takes it back, as for an order that was refused its coupon.
    async fn takes_back(&mut self) -> Result<(), String> {
        let Some(index) = self.any_order() else { return Ok(()) };
        let Some(asked) = self.orders[index].asked.pop() else { return Ok(()) };
        let (event_id, order_id) = (self.event_id.to_string(), self.orders[index].order.order_id.to_string());
        let reservations = vec![proto::ReservationRef { event_id, order_id, request_time: asked.request_time }];
        let request = proto::ReleaseRequest { reservations };
        let mut released = runs::release_once_there_is_room(&self.ground.sale.api(), request).await;
        self.steps.push(format!("{} takes one of its requests back: {released}", self.name(index)));
        let is_last = self.orders[index].asked.is_empty() && !self.orders[index].ended;
        if is_last && released == 0 {
            // A request whose answer was lost, and that was sent again, still needs them.
            released = take_back_unanswered(&self.ground.sale, &self.orders[index].order, asked.request_time).await?;
        }
        if released != i32::from(is_last) {
            return Err("units went back while somebody needs them, or did not".into());
        }
        if is_last {
            self.orders[index].reserved = None;
            // Redis is told in the queue of another replica than the ones that told it of the units.
            self.disturbed = true;
        }
        Ok(())
    }

    /// The order was written and is cancelled: its message gives its units back.
    async fn cancels(&mut self) -> Result<(), String> {
        let Some(index) = self.any_order() else { return Ok(()) };
        if self.orders[index].reserved.is_none() {
            return Ok(());
        }
        self.steps.push(format!("{} is cancelled", self.name(index)));
        let order = self.orders[index].order.clone();
        self.ground.sale.order_says(&order, &[Said::Cancelled]).await;
        let sale = &self.ground.sale;
        eventually("the units are given back", || async { (sale.in_ledger(&order).await == 0).then_some(()) }).await;
        let known = &mut self.orders[index];
        (known.reserved, known.ended) = (None, true);
        // Redis is told right after.
        self.disturbed = true;
        Ok(())
    }

    async fn loses_redis(&mut self) -> Result<(), String> {
        self.keys.lose().await;
        self.steps.push("redis is lost".into());
        self.disturbed = true;
        Ok(())
    }

    /// Takes a copy of Redis, or goes back to the one that was taken before.
    async fn rolls_back(&mut self) -> Result<(), String> {
        if !self.keys.is_copied() {
            self.keys.copy().await;
            self.steps.push("a copy of redis is taken".into());
            return Ok(());
        }
        let on_another_run = self.random.below(2) == 0;
        self.keys.roll_back(on_another_run).await;
        self.arrivals_repeat |= !on_another_run;
        let how = if on_another_run { "on another run of the server" } else { "by hand" };
        self.steps.push(format!("redis is rolled back to the copy {how}"));
        self.disturbed = true;
        Ok(())
    }

    async fn repairs(&mut self) -> Result<(), String> {
        let request = proto::ReconcileRequest { event_id: self.event_id.to_string() };
        let drifts = runs::reconcile_once_there_is_room(&self.ground.sale.api(), request).await;
        self.steps.push(format!("redis is repaired: {drifts:?}"));
        self.settles().await
    }

    /// Redis comes to show what the model knows, and nothing is on hold any more. From then on it refuses rightly.
    async fn settles(&mut self) -> Result<(), String> {
        let mut shown = Vec::new();
        for _ in 0..600 {
            shown = self.shown().await;
            if shown == self.expected() {
                self.disturbed = false;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("redis shows (left, committed, held) {shown:?} and not {:?}", self.expected()))
    }

    /// Left, committed and held units of each item as Redis shows them; nothing while it is not ready.
    async fn shown(&self) -> Vec<(i32, i32, i32)> {
        let request = proto::GetStockRequest { event_id: self.event_id.to_string() };
        let Ok(response) = self.ground.sale.api().get_stock(request).await else { return Vec::new() };
        let mut stocks = response.into_inner().stocks;
        stocks.sort_by_key(|stock| self.items.iter().position(|item| item.item_id == stock.item_id));
        stocks.iter().map(|stock| (stock.left_units, stock.committed_units, stock.held_units)).collect()
    }

    fn expected(&self) -> Vec<(i32, i32, i32)> {
        let of_item = |item: &proto::StagedItem| {
            let committed = self.units_by_buyer(&item.item_id).values().sum::<i32>();
            (item.total_units - committed, committed, 0)
        };
        self.items.iter().map(of_item).collect()
    }

    async fn ledger_has_all(&self) -> Result<(), String> {
        for known in &self.orders {
            let reserved = known.reserved.iter().flat_map(|reserved| &reserved.lines);
            let units = reserved.map(|line| i64::from(line.units)).sum::<i64>();
            let in_ledger = self.ground.sale.in_ledger(&known.order).await;
            if in_ledger != units {
                return Err(format!("{} has {in_ledger} units in the ledger and not {units}", known.order.order_id));
            }
        }
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        let order = &self.orders[index].order;
        let buyer = self.buyers.iter().position(|buyer| *buyer == order.buyer).expect("one of them");
        let units: Vec<i32> = order.lines.iter().map(|(_, units)| *units).collect();
        format!("order {index} of buyer {buyer} for {units:?}")
    }
}

async fn play(ground: &Ground, seed: u64) -> (u64, Result<(), String>) {
    (seed, History::begin(ground, seed).await.run().await)
}

/// On how many replicas a seed is played.
fn replicas_of(seed: u64) -> usize {
    1 + usize::try_from(seed % REPLICAS as u64).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_is_sold_twice_lost_or_stuck() {
    let _permit = heavy().await;
    let test = "whatever_happens_nothing_is_sold_twice_lost_or_stuck";
    let mut runs = Runs::of(test, "STAMPEDE_TEST_HISTORIES", HISTORIES);
    for replicas in 1..=REPLICAS {
        let seeds: Vec<u64> = runs.seeds().filter(|seed| replicas_of(*seed) == replicas).collect();
        if seeds.is_empty() || runs.is_enough() {
            continue;
        }
        let ground = Ground::new(replicas).await;
        let played = stream::iter(seeds.into_iter().map(|seed| play(&ground, seed)));
        let mut played = played.buffer_unordered(AT_A_TIME);
        while let Some((seed, outcome)) = played.next().await {
            runs.note(seed, outcome);
            if runs.is_enough() {
                break;
            }
        }
        drop(played);
        ground.sale.mesh.stop().await.unwrap();
    }
    runs.end();
}
