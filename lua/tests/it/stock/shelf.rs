//! One event in a world of its own, and the calls that change it.

use stampede_lua::{
    Keys, Redis, RedisConfig,
    stock::{
        Cause, Decision, Hold, InLedger, LedgerCopy, LedgerUnits, Reading, Refusal, Reservation, ShelfItem, StagedItem,
        Staging, Stock, WantedLine,
    },
};
use stampede_testkit::AdminRedis;
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Quantity, Timestamp, UserId};
use uuid::Uuid;

pub const LONG_AGO: Timestamp = Timestamp::from_micros(1_000_000);
pub const FAR: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);

/// One event with a shelf of its own.
pub struct Shelf {
    pub stock: Stock,
    pub event: EventId,
    url: String,
    key_prefix: String,
}

impl Shelf {
    /// An event that nobody has staged.
    pub async fn missing() -> Self {
        Self::on(std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names a Redis to test on"))
            .await
    }

    /// The same on this server.
    pub async fn on(url: String) -> Self {
        let unique = UserId::random();
        let key_prefix = format!("t:{unique}:");
        let config = RedisConfig { url: url.clone(), key_prefix: key_prefix.clone() };
        let redis = Redis::connect(config).await.unwrap();
        Self { stock: Stock::new(redis), event: EventId::from_uuid(unique.uuid()), url, key_prefix }
    }

    /// An open event with these items.
    pub async fn open(items: Vec<StagedItem>) -> Self {
        let shelf = Self::missing().await;
        assert!(shelf.stage(1, LONG_AGO, FAR, items).await);
        shelf
    }

    pub async fn stage(
        &self,
        version: i64,
        open_time: Timestamp,
        close_time: Timestamp,
        items: Vec<StagedItem>,
    ) -> bool {
        self.stage_after(version, (open_time, close_time), items, 0).await
    }

    pub async fn stage_after(
        &self,
        event_version: i64,
        (open_time, close_time): (Timestamp, Timestamp),
        items: Vec<StagedItem>,
        arrivals_at_least: i64,
    ) -> bool {
        let staging = self.staging(event_version, (open_time, close_time), items, arrivals_at_least).await;
        self.stock.stage(&staging).await.unwrap()
    }

    pub async fn staging(
        &self,
        event_version: i64,
        (open_time, close_time): (Timestamp, Timestamp),
        items: Vec<StagedItem>,
        arrivals_at_least: i64,
    ) -> Staging {
        let event_id = self.event;
        let compared_on = self.stock.snapshot(event_id, &[]).await.unwrap().run_id;
        Staging {
            event_id,
            event_version,
            open_time,
            close_time,
            expires_at: FAR,
            arrivals_at_least,
            compared_on,
            was_compared: false,
            items,
        }
    }

    pub async fn reserve(&self, asks: &[Reservation]) -> Vec<Decision> {
        self.stock.reserve(self.event, asks).await.unwrap().into_iter().map(Result::unwrap).collect()
    }

    pub async fn decide(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Decision {
        self.reserve(&[ask(order, user, lines)]).await.remove(0)
    }

    pub async fn hold(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Hold {
        match self.decide(order, user, lines).await {
            Decision::Held(hold) => hold,
            other => panic!("not held: {other:?}"),
        }
    }

    pub async fn refusal(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Refusal {
        match self.decide(order, user, lines).await {
            Decision::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// What the script has of a known buyer.
    pub async fn reading(&self, ask: Reservation) -> Reading {
        match self.reserve(&[ask]).await.remove(0) {
            Decision::KnownBuyer(reading) => reading,
            other => panic!("decided: {other:?}"),
        }
    }

    /// Writes fields of an item directly, without a script.
    pub async fn set_behind(&self, n: u128, fields: &[(&str, i64)]) {
        let key = Keys::new(&self.key_prefix).stock_item(self.event, item_id(n));
        let mut set = redis::cmd("HSET");
        set.arg(key);
        for (field, number) in fields {
            set.arg(*field).arg(*number);
        }
        let mut conn = AdminRedis::connect(&self.url).await.unwrap();
        set.exec_async(&mut conn).await.unwrap();
    }

    /// The keys of the event, of its holds and of item `n`.
    pub fn keys(&self, n: u128) -> [String; 3] {
        let keys = Keys::new(&self.key_prefix);
        [keys.stock_event(self.event), keys.stock_holds(self.event), keys.stock_item(self.event, item_id(n))]
    }

    /// An item disappears.
    pub async fn lose_item(&self, n: u128) {
        let key = Keys::new(&self.key_prefix).stock_item(self.event, item_id(n));
        let mut conn = AdminRedis::connect(&self.url).await.unwrap();
        redis::cmd("DEL").arg(key).exec_async(&mut conn).await.unwrap();
    }

    /// The event does not know any more how many places of arrival it has given out.
    pub async fn lose_arrivals(&self) {
        let key = Keys::new(&self.key_prefix).stock_event(self.event);
        let mut conn = AdminRedis::connect(&self.url).await.unwrap();
        redis::cmd("HDEL").arg(key).arg("arrivals").exec_async(&mut conn).await.unwrap();
    }

    /// Writes the hold of an order directly, without a script.
    pub async fn write_hold(&self, order: u128, packed: &str) {
        let key = Keys::new(&self.key_prefix).stock_holds(self.event);
        let mut set = redis::cmd("HSET");
        set.arg(key).arg(order_id(order).to_string()).arg(packed);
        let mut conn = AdminRedis::connect(&self.url).await.unwrap();
        set.exec_async(&mut conn).await.unwrap();
    }

    pub async fn item(&self, n: u128) -> ShelfItem {
        self.stock.snapshot(self.event, &[item_id(n)]).await.unwrap().items[0].expect("the item is staged")
    }

    /// Settles item 1 at this version, for one buyer, and drops the holds of these orders.
    pub async fn sync(&self, version: i64, units: i32, buyer: (u128, i32), orders: &[u128]) -> u32 {
        let ledger_copies = [ledger_copy(version, units, &[buyer], false)];
        let answered: Vec<_> = orders.iter().map(|order| (order_id(*order), vec![item_id(1)])).collect();
        self.stock.sync(self.event, &ledger_copies, &answered).await.unwrap()
    }
}

pub fn item_id(n: u128) -> ItemId {
    ItemId::from_uuid(Uuid::from_u128(n))
}

pub fn order_id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

pub fn user_id(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

/// Item `n`: so many units at 19.99 EUR, two a buyer, no gifts.
pub fn item(n: u128, total_units: i32) -> StagedItem {
    StagedItem {
        item_id: item_id(n),
        total_units,
        limit_per_buyer: 2,
        unit_price: Money::new(1999, "EUR".parse().unwrap()),
        gift_total_units: 0,
        ledger: LedgerUnits::default(),
    }
}

/// An order of a user for `(item, units)`.
pub fn ask(order: u128, user: u128, lines: &[(u128, i64)]) -> Reservation {
    let line =
        |&(item, units): &(u128, i64)| WantedLine { item_id: item_id(item), units: Quantity::new(units).unwrap() };
    Reservation {
        order_id: order_id(order),
        user_id: user_id(user),
        fingerprint: Fingerprint::new([1; 32]),
        ledger: InLedger::Absent,
        lines: lines.iter().map(line).collect(),
    }
}

/// The same order in a request with another body.
pub fn another_request(ask: Reservation) -> Reservation {
    Reservation { fingerprint: Fingerprint::new([2; 32]), ..ask }
}

pub fn ledger_copy(version: i64, committed_units: i32, buyers: &[(u128, i32)], all_buyers: bool) -> LedgerCopy {
    LedgerCopy {
        item_id: item_id(1),
        ledger: LedgerUnits { committed_units, gift_committed_units: 0, version },
        first_version: version,
        buyers: buyers.iter().map(|&(user, units)| (user_id(user), units)).collect(),
        all_buyers,
    }
}

pub fn refused(cause: Cause, item: Option<u128>, allowed_units: i32) -> Refusal {
    Refusal { cause, item_id: item.map(item_id), allowed_units }
}
