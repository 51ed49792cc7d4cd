//! The scripts on a Redis Cluster: each runs where its keys are, and knows on which run of which node.

use stampede_lua::{
    Keys, Redis, RedisConfig, RedisError,
    coupon::{self, Loaded, Outcome, Plan},
    gate::{self, Admission, Bucket, FirstToken, Next, OpenOrders, Question, Rotation},
    stock::{
        Cause, Decision, Hold, InLedger, LedgerCopy, LedgerUnits, Reservation, ShelfItem, Snapshot, StagedItem,
        Staging, Stock, WantedLine,
    },
};
use stampede_testkit::{OwnCluster, eventually};
use stampede_vocab::{
    CampaignId, EventId, Fingerprint, ItemId, Money, OrderId, Quantity, RequestId, Timestamp, UserId, clock,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const PREFIX: &str = "t:";
const LONG_AGO: Timestamp = Timestamp::from_micros(1_000_000);
const FAR: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);

async fn connect(cluster: &OwnCluster) -> Redis {
    Redis::connect(RedisConfig { url: cluster.url(), key_prefix: PREFIX.into() }).await.unwrap()
}

/// Asks again while nobody answers: a call has two seconds, and a machine under load may take longer.
async fn answered<T>(what: &str, ask: impl AsyncFn() -> Result<T, RedisError>) -> T {
    eventually(what, || async {
        match ask().await {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(error.is_unreachable(), "{error}");
                None
            }
        }
    })
    .await
}

/// An event with five units of one item, two a buyer.
struct Event {
    stock: Stock,
    id: EventId,
}

impl Event {
    fn new(redis: &Redis, number: u128) -> Self {
        Self { stock: Stock::new(redis.clone()), id: EventId::from_uuid(Uuid::from_u128(number)) }
    }

    /// An open event.
    async fn open(redis: &Redis, number: u128) -> Self {
        let event = Self::new(redis, number);
        let run_id = event.snapshot().await.run_id;
        assert!(event.stage(&run_id).await);
        event
    }

    /// An open event that another master has than `other`.
    async fn apart_from(other: &Self, redis: &Redis, cluster: &OwnCluster) -> Self {
        let taken = cluster.master_of(&other.key()).await.unwrap();
        for number in 100..200 {
            if cluster.master_of(&Self::new(redis, number).key()).await.unwrap() != taken {
                return Self::open(redis, number).await;
            }
        }
        panic!("a hundred events are all at {taken}");
    }

    fn key(&self) -> String {
        Keys::new(PREFIX).stock_event(self.id)
    }

    async fn snapshot(&self) -> Snapshot {
        answered("the event is read", async || self.stock.snapshot(self.id, &[item_id()]).await).await
    }

    async fn item(&self) -> ShelfItem {
        self.snapshot().await.items[0].expect("the item is staged")
    }

    async fn stage(&self, compared_on: &str) -> bool {
        let item = StagedItem {
            item_id: item_id(),
            total_units: 5,
            limit_per_buyer: 2,
            unit_price: Money::new(1999, "EUR".parse().unwrap()),
            gift_total_units: 0,
            ledger: LedgerUnits::default(),
        };
        let staging = Staging {
            event_id: self.id,
            event_version: 1,
            open_time: LONG_AGO,
            close_time: FAR,
            expires_at: FAR,
            arrivals_at_least: 0,
            compared_on: compared_on.to_owned(),
            was_compared: false,
            items: vec![item],
        };
        answered("the event is staged, or is not", async || self.stock.stage(&staging).await).await
    }

    /// One unit for this buyer; `None` while Redis cannot be asked.
    async fn decide(&self, buyer: u128) -> Option<Decision> {
        let ask = Reservation {
            order_id: order_id(buyer),
            user_id: user_id(buyer),
            fingerprint: Fingerprint::new([1; 32]),
            ledger: InLedger::Absent,
            lines: vec![WantedLine { item_id: item_id(), units: Quantity::new(1).unwrap() }],
        };
        match self.stock.reserve(self.id, &[ask]).await {
            Ok(mut decisions) => Some(decisions.remove(0).unwrap()),
            Err(error) => {
                assert!(error.is_unreachable(), "{error}");
                None
            }
        }
    }

    /// The hold of this buyer. To ask again changes nothing.
    async fn hold(&self, buyer: u128) -> Hold {
        match eventually("a master answers for the event", || async { self.decide(buyer).await }).await {
            Decision::Held(hold) => hold,
            other => panic!("not held: {other:?}"),
        }
    }

    /// Waits until it is decided, and returns whether the answer is NOT_READY.
    async fn is_not_ready(&self, buyer: u128) -> bool {
        let decision = eventually("a master answers for the event", || async { self.decide(buyer).await }).await;
        matches!(decision, Decision::Refused(refusal) if refusal.cause == Cause::NotReady)
    }
}

fn item_id() -> ItemId {
    ItemId::from_uuid(Uuid::from_u128(1))
}

fn order_id(buyer: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(buyer))
}

fn user_id(buyer: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(buyer))
}

#[tokio::test]
async fn events_on_different_masters_are_sold_and_synced_side_by_side() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let here = Event::open(&redis, 1).await;
    let there = Event::apart_from(&here, &redis, &cluster).await;
    assert_ne!(here.snapshot().await.run_id, there.snapshot().await.run_id, "each node has a run of its own");
    let (asked_at, time) = (clock::machine(), redis.time().await.unwrap());
    assert!(asked_at <= time && time <= clock::machine(), "all are on this machine: {time:?}, asked at {asked_at:?}");

    for buyer in 1..=3 {
        let (first, second) = tokio::join!(here.hold(buyer), there.hold(buyer));
        assert_eq!((first.arrival, second.arrival), (i64::try_from(buyer).unwrap(), i64::try_from(buyer).unwrap()));
    }
    for event in [&here, &there] {
        let copy = LedgerCopy {
            item_id: item_id(),
            ledger: LedgerUnits { committed_units: 1, gift_committed_units: 0, version: 1 },
            first_version: 1,
            buyers: vec![(user_id(1), 1)],
            all_buyers: false,
        };
        assert_eq!(event.stock.sync(event.id, &[copy], &[(order_id(1), vec![item_id()])]).await.unwrap(), 1);
        let item = event.item().await;
        assert_eq!((item.committed_units, item.held_units), (1, 2));
        let page = event.stock.aged_holds(event.id, 0, 100, Duration::ZERO).await.unwrap();
        assert_eq!(page.holds.len(), 2);
    }
}

#[tokio::test]
async fn coupons_are_ranked_and_tokens_rotated_wherever_their_keys_are() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let plan = Plan { quota: 2, open_time: LONG_AGO, close_time: FAR, expires_at: FAR };
    // Ten of each lie on more than one master.
    for number in 1..=10 {
        let campaign = CampaignId::from_uuid(Uuid::from_u128(number));
        let coupon::Staging::Loading { epoch } = coupon::stage(&redis, campaign, plan, None).await.unwrap() else {
            panic!("nobody has staged it");
        };
        assert_eq!(coupon::load(&redis, campaign, epoch, &[], true).await.unwrap(), Loaded::Ready);
        let claims = [1, 2, 3].map(|user| (user_id(user), RequestId::parse("claim").unwrap()));
        let outcomes = coupon::claim(&redis, campaign, &claims).await.unwrap();
        let ranks = outcomes.iter().map(|outcome| match outcome {
            Outcome::Ranked(ranked) => Some(ranked.rank),
            _ => None,
        });
        assert_eq!(ranks.collect::<Vec<_>>(), [Some(1), Some(2), None]);

        let epoch = gate::epoch(&redis, "fresh").await.unwrap();
        let (family, expires_at) = (number.to_string(), epoch.now.plus(Duration::from_secs(60)));
        let (user, role) = (user_id(number), "buyer".to_owned());
        let first = FirstToken { family: family.clone(), user, role, epoch: epoch.name.clone(), expires_at };
        let life = Duration::from_secs(60);
        let hashes = ["hash-1", "hash-2", "hash-3"].map(|hash| [hash.to_owned()]);
        let [to_first, to_second, to_third] = [0, 1, 2].map(|at| Next { hashes: &hashes[at], life, repeat: life });
        let opened = gate::open(&redis, &first, &epoch, to_first).await.unwrap();
        assert!(matches!(opened, Rotation::Rotated { .. }), "{opened:?}");
        let rotated = gate::rotate(&redis, &family, "hash-1", to_second).await.unwrap();
        assert!(matches!(rotated, Rotation::Rotated { .. }), "{rotated:?}");
        assert_eq!(gate::rotate(&redis, &family, "hash-1", to_third).await.unwrap(), Rotation::Reused);
        assert!(gate::end(&redis, &family, None, life).await.unwrap());
        assert!(gate::revoke(&redis, &family, epoch.now.plus(life)).await.unwrap());
    }
    let (revoked, _) = gate::revoked_since(&redis, LONG_AGO).await.unwrap();
    assert_eq!(revoked.len(), 10, "one list, wherever the families are");
}

/// One user after the other at one address, which may do so many of this act; each user may do two.
fn claims(redis: &Redis, users: &[u128], of_address: u64) -> Vec<Question> {
    let minute = Duration::from_secs(60);
    let claim = |number: &u128| {
        let user = Bucket::new(redis.keys(), user_id(*number), "claim", 2, minute);
        Question::Act(vec![user, Bucket::new(redis.keys(), "192.0.2.1", "claim", of_address, minute)])
    };
    users.iter().map(claim).collect()
}

#[tokio::test]
async fn callers_are_limited_wherever_their_keys_are() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let minute = Duration::from_secs(60);
    let ask = async |questions: Vec<Question>| -> Vec<Admission> {
        gate::ask_limits(&redis, questions).await.into_iter().map(Result::unwrap).collect()
    };
    // Ten of each lie on more than one master; the questions about all of them are asked together.
    let of = |number: u128| vec![OpenOrders::of(redis.keys(), user_id(number))];
    let ordering = |number: u128, placing: u128| {
        let bucket = Bucket::new(redis.keys(), user_id(number), "order", 2, minute);
        Question::Act(vec![bucket.bounding(of(number).remove(0), 1, order_id(placing))])
    };
    let all = |question: &dyn Fn(u128) -> Question| (1..=10).map(question).collect::<Vec<_>>();
    let admitted = [Admission::Admitted; 10];
    assert_eq!(ask(all(&|number| ordering(number, number))).await, admitted);
    let placed = |number| Question::Placed { order: order_id(number), of: of(number), life: minute };
    assert_eq!(ask(all(&placed)).await, admitted);
    let open = ask(all(&|number| ordering(number, number + 100))).await;
    assert!(open.iter().all(|answer| matches!(answer, Admission::Open { bucket: 0, .. })), "{open:?}");
    let settled = |number| Question::Settled { order: order_id(number), of: of(number), life: minute };
    let mut questions = all(&|number| ordering(number, number + 100));
    questions.extend(all(&settled));
    assert_eq!(ask(questions).await, [Admission::Admitted; 20], "what is written is written first");
    let full = ask(all(&|number| ordering(number, number + 100))).await;
    assert!(full.iter().all(|answer| matches!(answer, Admission::Throttled { bucket: 0, .. })), "{full:?}");
}

#[tokio::test]
async fn the_narrowest_limit_comes_first_wherever_the_keys_are() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let answers = gate::ask_limits(&redis, claims(&redis, &[1, 1, 1, 2, 3, 4], 4)).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(matches!(answers[2], Admission::Throttled { bucket: 0, .. }), "{answers:?}");
    assert!(matches!(answers[5], Admission::Throttled { bucket: 1, .. }), "{answers:?}");
    let admitted = answers.iter().filter(|answer| **answer == Admission::Admitted).count();
    assert_eq!(admitted, 4, "who was over their own limit took nothing from the address: {answers:?}");
}

#[tokio::test]
async fn after_a_failover_nothing_is_granted_until_it_was_compared_on_the_new_run() {
    let mut cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let event = Event::open(&redis, 1).await;
    let elsewhere = Event::apart_from(&event, &redis, &cluster).await;
    event.hold(1).await;
    let before = event.snapshot().await.run_id;
    cluster.replicated(&event.key()).await.unwrap();

    cluster.kill_master_of(&event.key()).await.unwrap();
    assert!(event.is_not_ready(2).await, "the new master has a copy of which nobody knows how old it is");
    let after = event.snapshot().await;
    assert_ne!(after.run_id, before);
    assert!(after.event.is_some_and(|event| !event.is_compared), "the copy is there: {after:?}");
    assert_eq!(event.item().await.held_units, 1);
    assert!(!event.stage(&before).await, "what was compared on the old run says nothing of this one");
    assert!(event.is_not_ready(2).await);
    assert_eq!(elsewhere.hold(1).await.arrival, 1, "the event of another master never stopped");

    assert!(event.stage(&after.run_id).await);
    assert_eq!(event.hold(2).await.arrival, 2);
}

#[tokio::test]
async fn a_master_that_stands_still_stops_no_event_of_another() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let event = Event::open(&redis, 1).await;
    let elsewhere = Event::apart_from(&event, &redis, &cluster).await;
    cluster.freeze_master_of(&event.key()).await.unwrap();
    assert!(event.decide(1).await.is_none(), "nobody answers for it");
    // That may have cost the connections; fresh ones must be there while it still stands still.
    let decided = eventually("the event of another master goes on", || async { elsewhere.decide(1).await });
    let decided = timeout(Duration::from_secs(10), decided).await.unwrap();
    assert!(event.decide(1).await.is_none(), "no replica has taken its place yet");
    assert!(matches!(decided, Decision::Held(_)), "{decided:?}");
}

/// How long the gateway waits for its limits.
const LIMITS_WAIT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_master_that_stands_still_takes_no_answers_of_the_limits_from_the_others() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let key = |user: u128| redis.keys().gate_bucket(user_id(user), "claim");
    let still = cluster.master_of(&key(1)).await.unwrap();
    let mut users = vec![1];
    for user in 2..=10 {
        if cluster.master_of(&key(user)).await.unwrap() != still {
            users.push(user);
        }
    }
    assert!(users.len() > 1, "ten users are on one master");
    let used_up = gate::ask_limits(&redis, claims(&redis, &users.repeat(2), 100)).await;
    assert!(used_up.iter().all(|answer| matches!(answer, Ok(Admission::Admitted))), "{used_up:?}");

    cluster.freeze_master_of(&key(1)).await.unwrap();
    let impatient = redis.with_timeout(LIMITS_WAIT);
    let others_answer = || async {
        let answers = gate::ask_limits(&impatient, claims(&redis, &users, 100));
        let answers = timeout(2 * LIMITS_WAIT, answers).await.ok()?;
        assert!(answers[0].is_err(), "its master stands still: {answers:?}");
        let are_refused =
            answers[1..].iter().all(|answer| matches!(answer, Ok(Admission::Throttled { bucket: 0, .. })));
        are_refused.then_some(())
    };
    eventually("the others answer in time", others_answer).await;
    // That has cost the connections; fresh ones must be there in the same time while it still stands still.
    eventually("the others answer in time over fresh connections", others_answer).await;
}

/// For longer than a library of Redis waits by itself, and for less than a call may take.
const STANDSTILL: Duration = Duration::from_millis(900);

#[tokio::test]
async fn a_master_that_stands_still_for_less_than_a_call_may_take_is_waited_for() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let event = Event::open(&redis, 1).await;
    // One of three: the machine may be busy with other tests.
    for buyer in 1..=3 {
        event.hold(buyer + 10).await;
        cluster.freeze_master_of(&event.key()).await.unwrap();
        let goes_on = async {
            sleep(STANDSTILL).await;
            cluster.thaw().unwrap();
        };
        let (decided, ()) = tokio::join!(event.decide(buyer), goes_on);
        if decided.is_some() {
            return;
        }
    }
    panic!("no call waits for a master that stands still for {STANDSTILL:?}");
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_and_its_event_is_compared_anew() {
    let cluster = OwnCluster::start().await.unwrap();
    let redis = connect(&cluster).await;
    let event = Event::open(&redis, 1).await;
    event.hold(1).await;
    let before = cluster.master_of(&event.key()).await.unwrap();
    cluster.move_slot_of(&event.key()).await.unwrap();
    assert_ne!(cluster.master_of(&event.key()).await.unwrap(), before);

    assert!(event.is_not_ready(2).await, "it was compared on the run of another node");
    assert!(event.stage(&event.snapshot().await.run_id).await);
    assert_eq!(event.hold(2).await.arrival, 2);
    assert_eq!(event.item().await.held_units, 2, "what was held has moved along");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused_as_a_server_of_its_own() {
    let cluster = OwnCluster::start().await.unwrap();
    let node = cluster.master_of("any").await.unwrap();
    let error = Redis::connect(RedisConfig { url: format!("redis://{node}"), key_prefix: PREFIX.into() }).await;
    let error = error.expect_err("it has only some of the keys").to_string();
    assert!(error.contains("redis-cluster://"), "{error}");
}
