//! The keys of one event in Redis, lost, copied and rolled back while the services run. Each is atomic for whoever
//! reads the keys meanwhile.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use redis::{AsyncCommands, Pipeline};
use stampede_lua::Keys;
use stampede_testkit::AdminRedis;
use stampede_vocab::{EventId, ItemId};

/// The keys of one event, and a copy of them.
pub struct EventKeys {
    conn: AdminRedis,
    event: String,
    holds_and_items: Vec<String>,
    copy: Vec<(String, Vec<u8>)>,
}

impl EventKeys {
    pub fn new(conn: AdminRedis, keys: &Keys, event_id: EventId, items: usize) -> Self {
        let item = |index| keys.stock_item(event_id, ItemId::derive(event_id, index));
        let holds_and_items = (0..items).map(item).chain([keys.stock_holds(event_id)]).collect();
        Self { conn, event: keys.stock_event(event_id), holds_and_items, copy: Vec::new() }
    }

    fn all(&self) -> Vec<String> {
        self.holds_and_items.iter().chain([&self.event]).cloned().collect()
    }

    pub async fn lose(&mut self) {
        let keys = self.all();
        let () = self.conn.del(keys).await.unwrap();
    }

    pub fn is_copied(&self) -> bool {
        !self.copy.is_empty()
    }

    /// Keeps a copy of what is there.
    pub async fn copy(&mut self) {
        let keys = self.all();
        if keys.is_empty() {
            self.copy.clear();
            return;
        }
        let mut dumps = atomic();
        for key in &keys {
            dumps.cmd("DUMP").arg(key);
        }
        let dumped: Vec<Option<Vec<u8>>> = dumps.query_async(&mut self.conn).await.unwrap();
        self.copy = keys.into_iter().zip(dumped).filter_map(|(key, bytes)| Some((key, bytes?))).collect();
    }

    /// Puts the copy back in place of what is there, as somebody does by hand, or as a server does that starts from it
    /// and so has another run id than the copy.
    pub async fn roll_back(&mut self, on_another_run: bool) {
        let mut restore = atomic();
        restore.cmd("DEL").arg(self.all());
        for (key, bytes) in self.copy.drain(..) {
            let is_event = key == self.event;
            restore.cmd("RESTORE").arg(&key).arg(0).arg(bytes);
            if is_event && on_another_run {
                restore.cmd("HSET").arg(&key).arg("run_id").arg("another");
            }
        }
        restore.exec_async(&mut self.conn).await.unwrap();
    }
}

fn atomic() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    pipeline
}
