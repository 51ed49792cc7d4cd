//! Rows by the thousand, written into the tables of the inventory, and what Redis has and has done.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::Sale;
use redis::AsyncCommands;
use sqlx::AssertSqlSafe;
use stampede_lua::Keys;
use stampede_testkit::{AdminRedis, Service, eventually};
use stampede_vocab::{Timestamp, UserId};
use std::time::Duration;
use uuid::Uuid;

/// A year, in microseconds.
const YEAR_US: i64 = 365 * 86_400 * 1_000_000;

/// A table `numbers` of all numbers that have no more digits than those below `count`.
fn numbers(count: i64) -> String {
    let digit = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let digits = (count - 1).to_string().len();
    let tables: Vec<String> = (0..digits).map(|place| format!("{digit} d{place}")).collect();
    let sum: Vec<String> = (0..digits).map(|place| format!("1{} * d{place}.n", "0".repeat(place))).collect();
    format!("(SELECT {} AS n FROM {}) numbers", sum.join(" + "), tables.join(", "))
}

async fn execute(sale: &Sale, sql: String) {
    let db = sale.world.database(Service::Inventory).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
}

/// `count` buyers get a unit of item 1 each, in as many changes of the ledger.
pub async fn sell_to(sale: &Sale, count: i64) {
    let (item, event) = (hex(sale.item(1).uuid()), hex(sale.event_id.uuid()));
    let rows = format!(
        "INSERT INTO ledger (order_id, item_id, user_id, event_id, arrival, units, gift_units, state, \
         committed_at_us, granted_at_us, request_fingerprint, item_version) \
         SELECT UNHEX(MD5(CONCAT('o', n))), {item}, UNHEX(MD5(CONCAT('u', n))), {event}, n + 1, 1, 0, 'COMMITTED', \
         1, 1, UNHEX(SHA2(n, 256)), n + 1 FROM {} WHERE n < {count}",
        numbers(count)
    );
    execute(sale, rows).await;
    let stock = format!(
        "UPDATE stock SET total_units = {count} + 1, committed_units = {count}, version = {count}, \
         numbered_changes = {count} WHERE item_id = {item}"
    );
    execute(sale, stock).await;
}

/// Who has bought by this change of item 1.
pub async fn buyer_of(sale: &Sale, version: i64) -> UserId {
    let db = sale.world.database(Service::Inventory).await.unwrap();
    let user: Uuid = sqlx::query_scalar("SELECT user_id FROM ledger WHERE item_id = ? AND item_version = ?")
        .bind(sale.item(1).uuid())
        .bind(version)
        .fetch_one(&mut *db.acquire().await.unwrap())
        .await
        .unwrap();
    UserId::from_uuid(user)
}

/// Writes so many events of one item that open in a year.
pub async fn plan_events(sale: &Sale, count: i64) {
    let open_time = Timestamp::now().micros() + YEAR_US;
    let rows = format!(
        "INSERT INTO stock (item_id, event_id, event_version, opens_at_us, closes_at_us, total_units, limit_per_buyer, \
         gift_total_units, unit_price_minor, currency) \
         SELECT UNHEX(MD5(CONCAT('i', n))), UNHEX(MD5(CONCAT('e', n))), 1, {open_time}, {open_time} + 3600000000, 10, 1, \
         0, 100, 'EUR' FROM {} WHERE n < {count}",
        numbers(count)
    );
    execute(sale, rows).await;
}

fn hex(id: Uuid) -> String {
    format!("UNHEX('{}')", id.simple())
}

/// The Redis of a sale, from behind.
pub struct Behind {
    conn: AdminRedis,
    keys: Keys,
    item: String,
}

impl Behind {
    /// Behind the Redis at this URL, with its item of this index.
    pub async fn of(sale: &Sale, url: &str, index: usize) -> Self {
        let conn = AdminRedis::connect(url).await.unwrap();
        let keys = Keys::new(sale.world.redis_key_prefix());
        Self { conn, item: keys.stock_item(sale.event_id, sale.item(index)), keys }
    }

    pub async fn field(&mut self, field: &str) -> Option<String> {
        self.conn.hget(&self.item, field).await.unwrap()
    }

    /// Waits until the field has this value.
    pub async fn field_becomes(&self, field: &str, expected: Option<&str>) {
        eventually(&format!("{field} is {expected:?}"), || async {
            let value: Option<String> = self.conn.clone().hget(&self.item, field).await.unwrap();
            (value.as_deref() == expected).then_some(())
        })
        .await;
    }

    pub async fn set(&mut self, fields: &[(&str, &str)]) {
        let () = self.conn.hset_multiple(&self.item, fields).await.unwrap();
    }

    /// The item disappears.
    pub async fn lose_item(&mut self) {
        let () = self.conn.del(&self.item).await.unwrap();
    }

    /// How far the pass over all events is.
    pub async fn pass(&mut self) -> Option<String> {
        self.conn.hget(self.keys.stock_pass(), "claim_cursor").await.unwrap()
    }

    /// Counts commands from here on.
    pub async fn begin_to_count(&mut self) {
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut self.conn).await.unwrap();
    }

    /// How often a command has run since, also by scripts.
    pub async fn count_of(&mut self, command: &str) -> u64 {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.conn).await.unwrap();
        let begin = format!("cmdstat_{command}:calls=");
        let calls = info.lines().find_map(|line| line.strip_prefix(&begin)?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }
}

/// Waits until this many units of item 1 are committed by Redis, with nothing in doubt. Fails after five minutes, since
/// a test may be told to copy a million buyers.
pub async fn copied_becomes(sale: &Sale, behind: &mut Behind, units: i64) {
    let until = tokio::time::Instant::now() + Duration::from_secs(300);
    loop {
        let level = sale.stock(1).await;
        let is_copied = level.is_some_and(|level| i64::from(level.committed) == units);
        if is_copied && behind.field("stale_from").await.is_none() {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "the buyers are not copied: {level:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
