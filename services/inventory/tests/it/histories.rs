//! Seeded histories of one event each against a plain model: reservations, repeats, duplicates at once, other requests
//! with the id of an order, processes that die between script and commit, callers that go away before they are
//! answered, requests taken back, orders that are cancelled, expire, are paid late or refunded, and a Redis that is
//! lost, rolled back to an earlier copy, or repaired, over one to three replicas. Whatever happens: nothing is sold
//! twice, nobody is over the limit, no two orders have one place of arrival, what was answered is in the ledger, and at
//! the end nothing is stuck.
//!
//! `STAMPEDE_TEST_HISTORIES=10000` runs so many of them, `STAMPEDE_TEST_SEED=7` begins with another seed. A failure
//! shows its steps and how to play it again, and those of the smallest part of it that has failed too, on an event of
//! its own. How soon anything happens is not part of a seed, so a part that fails need not do so each time.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    drawn::{Drawn, Kind, Step, Units, of_seed},
    event_keys::EventKeys,
    history_model::{Known, Model},
    orders::take_back_unanswered,
    random::Random,
    runs::{self, Runs},
    sale::{Answer, Sale, Step as Said, retire, seconds_from_now},
    shrink::shrink,
    stand::as_the_script_takes_it,
};
use futures_util::{FutureExt, StreamExt, future::join_all, stream};
use proptest::strategy::ValueTree;
use stampede_lua::{Redis, RedisConfig, stock::Stock};
use stampede_proto::{
    inventory::v1::{self as proto, inventory_service_client::InventoryServiceClient, reservation_result::Outcome},
    r#type::v1::Money,
};
use stampede_testkit::{AdminRedis, Service, as_order_service, buyer, eventually, heavy};
use stampede_vocab::{EventId, ItemId, RequestId};
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

const HISTORIES: u64 = 50;
const AT_A_TIME: usize = 24;
/// Most replicas; a third of the seeds each is played on one, two and three.
const REPLICAS: usize = 3;
/// How often a request is sent at once.
const DUPLICATES: usize = 3;
/// Longest wait of a caller that goes away, in milliseconds. Some are answered by then.
const MOST_PATIENCE_MS: i32 = 20;
/// Longest wait until Redis shows what the ledger has.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

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

/// One event and what the model knows of it.
struct History<'g> {
    ground: &'g Ground,
    /// What the step under way chooses.
    random: Random,
    model: Model,
    keys: EventKeys,
    steps: Vec<String>,
}

impl<'g> History<'g> {
    async fn begin(ground: &'g Ground, drawn: &Drawn) -> Self {
        let event_id = EventId::derive(buyer(), &RequestId::parse("history").unwrap());
        let item = |(index, units): (usize, &Units)| proto::StagedItem {
            item_id: ItemId::derive(event_id, index).to_string(),
            total_units: units.total,
            limit_per_buyer: units.limit_per_buyer,
            gift_total_units: units.gift_total,
            unit_price: Some(Money { minor_units: 1_999, currency: "EUR".into() }),
            ..proto::StagedItem::default()
        };
        let items: Vec<_> = drawn.items.iter().enumerate().map(item).collect();
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
            random: Random::new(0),
            model: Model::new(event_id, items),
            keys: EventKeys::new(ground.conn.clone(), ground.redis.keys(), event_id, drawn.items.len()),
            steps: Vec::new(),
        }
    }

    /// After about half of the disturbances it waits until the service has repaired itself: from then on what is
    /// answered has to be exact.
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            self.random = Random::new(step.choices);
            let is_awaited = self.random.below(2) == 0;
            let disturbances = self.model.disturbances;
            self.step(step.kind).await?;
            if is_awaited && self.model.disturbances > disturbances {
                self.settles().await?;
            }
        }
        self.settles().await?;
        self.ledger_has_all().await
    }

    async fn step(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Place => self.place().await,
            Kind::Repeat => self.repeat().await,
            Kind::Duplicates => self.duplicates().await,
            Kind::AskOtherwise => self.asks_otherwise().await,
            Kind::DieBeforeTheCommit => self.dies_before_the_commit().await,
            Kind::GoAway => self.goes_away().await,
            Kind::TakeBack => self.takes_back().await,
            Kind::End => self.ends().await,
            Kind::PayLate => self.pays_late().await,
            Kind::LoseRedis => self.loses_redis().await,
            Kind::RollBack => self.rolls_back().await,
            Kind::Repair => self.repairs().await,
        }
    }

    /// Leaves nothing to do for the service, also after a failure: other histories are played beside it.
    async fn clear(&mut self) -> Result<(), String> {
        retire(&self.ground.sale.inventory_db, self.model.event_id).await;
        self.keys.lose().await;
        Ok(())
    }

    fn told(&self, fault: &str) -> String {
        format!("{fault}\n  items {:?}\n  {}", self.model.items, self.steps.join("\n  "))
    }

    async fn place(&mut self) -> Result<(), String> {
        let index = self.model.new_order(&mut self.random);
        self.reserve(index).await
    }

    /// Half of the time it repeats the last request whose caller went away, if there is one.
    async fn repeat(&mut self) -> Result<(), String> {
        let takes_unheard = self.random.below(2) == 0;
        let in_doubt = self.model.in_doubt().last().copied().filter(|_| takes_unheard);
        let Some(index) = in_doubt.or_else(|| self.any(|_| true)) else { return Ok(()) };
        self.reserve(index).await
    }

    fn any(&mut self, is_meant: impl Fn(&Known) -> bool) -> Option<usize> {
        self.model.any(&mut self.random, is_meant)
    }

    async fn ask(&self, replica: usize, reservation: proto::Reservation) -> Outcome {
        let request = proto::ReserveRequest { reservations: vec![reservation] };
        let replicas = &self.ground.replicas;
        let answer = runs::reserve_once_there_is_room(&replicas[replica % replicas.len()], request).await;
        answer.results.into_iter().next().unwrap().outcome.unwrap()
    }

    async fn reserve(&mut self, index: usize) -> Result<(), String> {
        let replica = self.random.below(REPLICAS);
        self.reserve_at(replica, index).await
    }

    async fn reserve_at(&mut self, replica: usize, index: usize) -> Result<(), String> {
        self.model.ask(1);
        let outcome = self.ask(replica, self.model.orders[index].order.reservation()).await;
        self.steps.push(format!("{} asks {replica}: {outcome:?}", self.model.name(index)));
        self.model.note(index, outcome)
    }

    async fn duplicates(&mut self) -> Result<(), String> {
        let index = self.model.new_order(&mut self.random);
        let reservation = self.model.orders[index].order.reservation();
        self.model.ask(DUPLICATES as i64);
        let outcomes = join_all((0..DUPLICATES).map(|replica| self.ask(replica, reservation.clone()))).await;
        self.steps.push(format!("{} asks all at once: {outcomes:?}", self.model.name(index)));
        // Whichever came first, the others are repeats of it or were refused as it was.
        let (reserved, refused): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|outcome| matches!(outcome, Outcome::Reserved(_)));
        for outcome in reserved.into_iter().chain(refused) {
            self.model.note(index, outcome)?;
        }
        Ok(())
    }

    /// Another request with the id of an order that has or had units.
    async fn asks_otherwise(&mut self) -> Result<(), String> {
        let Some(index) = self.any(Known::is_in_ledger) else { return Ok(()) };
        self.model.ask(1);
        let known = &mut self.model.orders[index];
        known.asked_otherwise = true;
        let other = proto::Reservation { request_fingerprint: vec![2; 32], ..known.order.reservation() };
        let replica = self.random.below(REPLICAS);
        let outcome = self.ask(replica, other).await;
        self.steps.push(format!("{} asks {replica} with another body: {outcome:?}", self.model.name(index)));
        self.model.check_reused(&outcome)
    }

    /// The script grants, and whoever asked is gone before the ledger hears of it.
    async fn dies_before_the_commit(&mut self) -> Result<(), String> {
        let index = self.model.new_order(&mut self.random);
        let reservation = as_the_script_takes_it(&self.model.orders[index].order);
        self.model.ask(1);
        let decision = self.ground.stock.reserve(self.model.event_id, &[reservation]).await.unwrap();
        self.steps.push(format!("{} dies before the commit: {decision:?}", self.model.name(index)));
        self.model.disturb();
        Ok(())
    }

    /// The caller goes away: before the script, before or after the commit, or as the answer comes. It hears nothing.
    async fn goes_away(&mut self) -> Result<(), String> {
        let index = self.model.new_order(&mut self.random);
        let (replica, patience) = (self.random.below(REPLICAS), self.random.between(1, MOST_PATIENCE_MS));
        let patience = Duration::from_millis(u64::try_from(patience).unwrap());
        self.model.ask(1);
        let known = &mut self.model.orders[index];
        known.unheard = true;
        let request = proto::ReserveRequest { reservations: vec![known.order.reservation()] };
        let replicas = &self.ground.replicas;
        let mut api = replicas[replica % replicas.len()].clone();
        let answer = timeout(patience, api.reserve(as_order_service(request))).await;
        let name = self.model.name(index);
        let how = if answer.is_ok() { "as it is answered" } else { "unanswered" };
        self.steps.push(format!("{name} asks {replica} and goes away {how}, within {patience:?}"));
        self.model.disturb();
        Ok(())
    }

    /// Whoever asked takes it back, as for an order that was refused its coupon. Nobody takes back what was paid.
    async fn takes_back(&mut self) -> Result<(), String> {
        let Some(index) = self.any(|known| known.late.is_none() && !known.asked.is_empty()) else { return Ok(()) };
        let known = &mut self.model.orders[index];
        let asked = known.asked.pop().expect("something was asked");
        let (event_id, order_id) = (known.order.event_id.to_string(), known.order.order_id.to_string());
        let reservations = vec![proto::ReservationRef { event_id, order_id, request_time: asked.request_time }];
        let request = proto::ReleaseRequest { reservations };
        let mut released = runs::release_once_there_is_room(&self.ground.sale.api(), request).await;
        self.steps.push(format!("{} takes one of its requests back: {released}", self.model.name(index)));
        let known = &mut self.model.orders[index];
        let is_last = known.asked.is_empty() && !known.ended;
        if is_last && released == 0 {
            // A request whose answer was lost, and that was sent again, still needs them.
            released = take_back_unanswered(&self.ground.sale, &known.order, asked.request_time).await?;
        }
        if released != i32::from(is_last) {
            return Err("units went back while somebody needs them, or did not".into());
        }
        if is_last {
            known.reserved = None;
            // Redis is told in the queue of another replica than the ones that told it of the units.
            self.model.disturb();
        }
        Ok(())
    }

    /// The order was written and ends: its message gives its units back. An end without payment takes nothing from an
    /// order that was paid late: it is a repeat of what came before.
    async fn ends(&mut self) -> Result<(), String> {
        let Some(index) = self.any(|known| known.reserved.is_some()) else { return Ok(()) };
        let end = [Said::Cancelled, Said::Expired, Said::Refunded][self.random.below(3)];
        if self.model.orders[index].late.is_some() && end != Said::Refunded {
            // That the payment is answered again shows that the end was read.
            return self.hears(index, &[end, Said::PaidLate]).await;
        }
        self.steps.push(format!("{} is {end:?}", self.model.name(index)));
        let order = self.model.orders[index].order.clone();
        let sale = &self.ground.sale;
        sale.order_says(&order, &[end]).await;
        eventually("the units are given back", || async { (sale.in_ledger(&order).await == 0).then_some(()) }).await;
        self.model.end(index);
        // Redis is told right after.
        self.model.disturb();
        Ok(())
    }

    /// The order was written, and is paid late: after it has ended, or when it is about to.
    async fn pays_late(&mut self) -> Result<(), String> {
        let Some(index) = self.any(Known::is_in_ledger) else { return Ok(()) };
        self.hears(index, &[Said::PaidLate]).await
    }

    /// Sends messages of the order, the last of which is a late payment, and waits for its answer.
    async fn hears(&mut self, index: usize, messages: &[Said]) -> Result<(), String> {
        self.steps.push(format!("{} is {messages:?}", self.model.name(index)));
        let Known { order, late_answers, .. } = &self.model.orders[index];
        let sale = &self.ground.sale;
        sale.order_says(order, messages).await;
        let mut answers: Vec<Answer> = sale.answered(order, late_answers + 1).await;
        let answer = answers.remove(*late_answers);
        self.steps.push(format!("the ledger answers {answer:?}"));
        self.model.note_late(index, answer)
    }

    async fn loses_redis(&mut self) -> Result<(), String> {
        self.keys.lose().await;
        self.steps.push("redis is lost".into());
        self.model.lose();
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
        let snapshot = self.ground.stock.snapshot(self.model.event_id, &[]).await.unwrap();
        if let Some(event) = snapshot.event.filter(|_| !on_another_run) {
            self.model.repeat_places_after(event.arrivals);
        }
        let how = if on_another_run { "on another run of the server" } else { "by hand" };
        self.steps.push(format!("redis is rolled back to the copy {how}"));
        self.model.roll_back();
        Ok(())
    }

    async fn repairs(&mut self) -> Result<(), String> {
        let request = proto::ReconcileRequest { event_id: self.model.event_id.to_string() };
        let drifts = runs::reconcile_once_there_is_room(&self.ground.sale.api(), request).await;
        self.steps.push(format!("redis is repaired: {drifts:?}"));
        self.settles().await
    }

    /// Redis comes to show what the model knows, and nothing is on hold any more. From then on it refuses rightly.
    async fn settles(&mut self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            self.asks_for_what_it_has().await?;
            let shown = self.shown().await;
            let is_shown = shown == self.model.expected();
            if is_shown && self.is_repaired().await {
                self.steps.push("redis has settled".into());
                self.model.settle();
                return Ok(());
            }
            if started.elapsed() > SETTLED_WITHIN {
                let expected = self.model.expected();
                return Err(format!("redis shows (left, committed, held) {shown:?}, and should {expected:?}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whoever went away, and has got units all the same, asks again and so hears of them.
    async fn asks_for_what_it_has(&mut self) -> Result<(), String> {
        for index in self.model.in_doubt() {
            if self.ground.sale.in_ledger(&self.model.orders[index].order).await > 0 {
                self.reserve_at(0, index).await?;
            }
        }
        Ok(())
    }

    /// Whether Redis is ready, has every change of the ledger, and knows all buyers.
    async fn is_repaired(&self) -> bool {
        let query = "SELECT item_id, version, COALESCE(last_grant_arrival, 0) FROM stock WHERE event_id = ?";
        let event_id = self.model.event_id;
        let mut conn = self.ground.sale.inventory_db.acquire().await.unwrap();
        let rows: Vec<(Uuid, i64, i64)> =
            sqlx::query_as(query).bind(event_id.uuid()).fetch_all(&mut *conn).await.unwrap();
        drop(conn);
        let ids: Vec<ItemId> = rows.iter().map(|(item_id, ..)| ItemId::from_uuid(*item_id)).collect();
        let snapshot = self.ground.stock.snapshot(event_id, &ids).await.unwrap();
        let last_place = rows.iter().map(|(_, _, arrival)| *arrival).max().unwrap_or(0);
        let is_ready = snapshot.event.is_some_and(|event| event.is_compared && event.arrivals >= last_place);
        is_ready
            && snapshot.items.iter().flatten().count() == rows.len()
            && snapshot.items.iter().flatten().zip(rows).all(|(item, (_, version, _))| {
                item.ledger_version == version && item.stale_from.is_none() && !item.has_uncounted_buyers
            })
    }

    /// Left, committed and held units of each item as Redis shows them; nothing while it is not ready.
    async fn shown(&self) -> Vec<(i32, i32, i32)> {
        let request = proto::GetStockRequest { event_id: self.model.event_id.to_string() };
        let Ok(response) = self.ground.sale.api().get_stock(request).await else { return Vec::new() };
        let mut stocks = response.into_inner().stocks;
        stocks.sort_by_key(|stock| self.model.items.iter().position(|item| item.item_id == stock.item_id));
        stocks.iter().map(|stock| (stock.left_units, stock.committed_units, stock.held_units)).collect()
    }

    async fn ledger_has_all(&self) -> Result<(), String> {
        let in_doubt = self.model.in_doubt();
        for (index, known) in self.model.orders.iter().enumerate() {
            if in_doubt.contains(&index) {
                continue;
            }
            let reserved = known.reserved.iter().flat_map(|reserved| &reserved.lines);
            let units = reserved.map(|line| i64::from(line.units)).sum::<i64>();
            let in_ledger = self.ground.sale.in_ledger(&known.order).await;
            if in_ledger != units {
                return Err(format!("{} has {in_ledger} units in the ledger and not {units}", known.order.order_id));
            }
        }
        Ok(())
    }
}

/// What comes of a part of the test, which may panic.
fn caught(part: impl Future<Output = Result<(), String>>) -> impl Future<Output = Result<(), String>> {
    let done = AssertUnwindSafe(part).catch_unwind();
    done.map(|outcome| outcome.unwrap_or_else(|_| Err("the test itself has failed, see above".into())))
}

/// Plays it on a new event, with new buyers.
async fn play_once(ground: &Ground, drawn: Drawn) -> Result<(), String> {
    let mut history = History::begin(ground, &drawn).await;
    let played = caught(history.run(&drawn.steps)).await;
    let outcome = played.and(caught(history.clear()).await);
    outcome.map_err(|fault| history.told(&fault))
}

/// Plays the history of a seed. If it fails, it looks for a smaller one that does, while the others are played.
async fn play(ground: &Ground, seed: u64) -> (u64, Result<(), String>) {
    let tree = of_seed(seed);
    let play_one = |drawn: Drawn| Box::pin(caught(play_once(ground, drawn)));
    let Err(fault) = play_one(tree.current()).await else { return (seed, Ok(())) };
    let first_line = fault.lines().next().unwrap_or_default();
    runs::say(&format!("seed {seed} has failed, and parts of it are played: {first_line}"));
    let smallest = shrink(tree, fault.clone(), play_one).await;
    (seed, Err(format!("{fault}\n  {smallest}")))
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
