//! Gives back the units of orders that have ended, where the message by which they should have was discarded by an
//! operator, or was lost with a database that was restored.
//!
//! It walks through the whole ledger, some rows at a time, and asks the order service about those that are committed.
//! An order that has ended is asked about again when it must have given its units back long since. What it asks of the
//! ledger is then done as by its message, under the same lock: done twice, or before a late payment, it changes no more
//! than the message does.
//!
//! The replicas walk in turn, each from where the one before it has come to, so a walk comes to its end however often
//! processes are replaced. What one of them has seen it settles itself; if it dies, the next walk sees it again.

use super::{
    SyncRedis,
    ledger::{lock_ledger, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::{
    client::Orders,
    domain::Ask,
    store::{
        self,
        walks::{self, Turn},
    },
};
use opentelemetry::{global, metrics::Counter};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, Statements};
use stampede_vocab::{ItemId, OrderId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Rows of the ledger that one round looks at, and most orders that it settles.
const ROWS_PER_ROUND: u32 = 1_024;
/// Most orders that are remembered until they are settled. What is beyond is found by the next walk.
const MAX_SUSPECTS: usize = 16 * 1_024;
/// Rounds in the time that an order has for its message.
const ROUNDS_PER_AGE: u32 = 30;
/// How long a turn of the walk is one replica's: longer than a round may take. If it dies with its turn, the others
/// wait for the rest of this.
const TURN: Duration = Duration::from_secs(60);

/// Gives back what ended orders have kept.
pub struct ReleaseEnded {
    db: Database,
    orders: Orders,
    sync: SyncRedis,
    age: Duration,
    walk: Mutex<Walk>,
    released: Counter<u64>,
}

/// What this replica knows of the walk.
#[derive(Default)]
struct Walk {
    last_round: Option<Instant>,
    /// Orders that have ended and still had units, with the time since when that is known.
    suspects: BTreeMap<OrderId, Timestamp>,
}

impl ReleaseEnded {
    /// Asks the order service about units in this schema, and gives back what orders have kept that ended longer than
    /// `age` ago.
    pub fn new(db: Database, orders: Orders, sync: SyncRedis, age: Duration) -> Self {
        let released = global::meter("stampede.inventory")
            .u64_counter("stampede_ledger_overdue_releases")
            .with_description("Ended orders whose units were given back without their message")
            .build();
        Self { db, orders, sync, age, walk: Mutex::default(), released }
    }

    /// Makes a round, unless the last one was just now. Several replicas may: giving back twice changes nothing.
    pub async fn run(&self) -> anyhow::Result<()> {
        // So that there is a count before the first one.
        self.released.add(0, &[]);
        let is_due = self.walk().begin_round(self.pause());
        if !is_due {
            return Ok(());
        }
        self.settle().await?;
        self.look_further().await
    }

    /// Gives back what the orders have that are known to have ended long ago.
    async fn settle(&self) -> anyhow::Result<()> {
        let due = self.walk().due(Timestamp::now().minus(self.age));
        if due.is_empty() {
            return Ok(());
        }
        let asks = self.orders.ended(&due).await?;
        self.release_all(asks).await?;
        self.walk().forget(&due);
        Ok(())
    }

    /// Time between two rounds.
    fn pause(&self) -> Duration {
        self.age / ROUNDS_PER_AGE
    }

    /// Goes on with the walk, unless it is another replica's turn.
    async fn look_further(&self) -> anyhow::Result<()> {
        let Some(turn) = self.begin_turn().await? else { return Ok(()) };
        let looked = self.look_behind(turn.after).await;
        // What could not be looked at is looked at again.
        let reached = looked.as_ref().map_or(turn.after, |reached| *reached);
        self.end_turn(turn, reached).await?;
        looked.map(drop)
    }

    async fn begin_turn(&self) -> Result<Option<Turn>, DbError> {
        let now = Timestamp::now();
        let begin = self.db.run("begin_turn", |mut conn| async move {
            walks::begin(&mut conn, walks::ENDED_ORDERS, now, now.plus(TURN)).await
        });
        begin.await
    }

    async fn end_turn(&self, turn: Turn, reached: Option<(OrderId, ItemId)>) -> Result<(), DbError> {
        // Half, so that the next round of the same replica does not come too early.
        let next = Timestamp::now().plus(self.pause() / 2);
        let end = self.db.run("end_turn", |mut conn| async move {
            walks::end(&mut conn, walks::ENDED_ORDERS, turn, reached, next).await
        });
        end.await
    }

    /// Notes the ended orders of the rows behind this one. Returns the last row; none at the end of the ledger.
    async fn look_behind(&self, after: Option<(OrderId, ItemId)>) -> anyhow::Result<Option<(OrderId, ItemId)>> {
        let read = self.db.run("committed_units", |mut conn| async move {
            store::ledger::page(&mut conn, after, ROWS_PER_ROUND).await
        });
        let rows = read.await?;
        let before = Timestamp::now().minus(self.age);
        let is_old = |at: Option<Timestamp>| at.is_some_and(|at| at < before);
        let orders: BTreeSet<OrderId> =
            rows.iter().filter(|(_, _, at)| is_old(*at)).map(|(order_id, _, _)| *order_id).collect();
        let ended = self.orders.ended(&orders.into_iter().collect::<Vec<_>>()).await?;
        self.walk().found(&ended, Timestamp::now());
        let is_last = rows.len() < ROWS_PER_ROUND as usize;
        Ok(rows.last().filter(|_| !is_last).map(|(order_id, item_id, _)| (*order_id, *item_id)))
    }

    /// Gives back all in one transaction. What the database refuses is split until the order that it is about is alone,
    /// so that a row that can't be read, or only by a newer release, keeps nobody else's units.
    async fn release_all(&self, asks: Vec<Ask>) -> Result<(), DbError> {
        let mut parts = vec![asks];
        while let Some(mut part) = parts.pop() {
            let error = match self.release(part.clone()).await {
                Ok(released) => {
                    self.note(released);
                    continue;
                }
                Err(error) if !error.is_of_data() => return Err(error),
                Err(error) => error,
            };
            if let [ask] = part.as_slice() {
                tracing::error!(
                    order.id = %ask.order_id(), error.cause = %error,
                    "the units of an order could not be given back"
                );
                continue;
            }
            let rest = part.split_off(part.len() / 2);
            // The last one is the next.
            parts.extend([rest, part]);
        }
        Ok(())
    }

    fn note(&self, released: u64) {
        if released > 0 {
            self.released.add(released, &[]);
            tracing::warn!(order.count = released, "the units of ended orders were given back without their message");
        }
    }

    /// Does what these orders ask of the ledger, and copies it to Redis. Returns of how many orders units went back.
    async fn release(&self, asks: Vec<Ask>) -> Result<u64, DbError> {
        if asks.is_empty() {
            return Ok(0);
        }
        let asks = Arc::new(asks);
        let work = self.db.transact("release_ended_orders", move |conn| {
            let asks = asks.clone();
            Box::pin(async move { release(conn, &asks).await })
        });
        let (released, syncs) = work.await?;
        self.sync.run(syncs).await;
        Ok(released)
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn release(conn: &mut MySqlConnection, asks: &[Ask]) -> Result<(u64, Vec<EventSync>), DbError> {
    let orders: BTreeSet<OrderId> = asks.iter().map(Ask::order_id).collect();
    let mut ledger = lock_ledger(conn, orders, BTreeSet::new()).await?;
    let now = Timestamp::now();
    for ask in asks {
        // What ends an order has no answer.
        ledger.apply(ask, now);
    }
    let changes = ledger.changes();
    let mut writes = Statements::new();
    push_changes(&mut writes, &changes);
    writes.run(conn).await?;
    let released: BTreeSet<OrderId> = changes.entries.iter().map(|entry| entry.order_id).collect();
    Ok((u64::try_from(released.len()).unwrap_or(u64::MAX), syncs(&changes, [])))
}

impl Walk {
    /// Returns whether a round is due, which begins then.
    fn begin_round(&mut self, pause: Duration) -> bool {
        let is_due = self.last_round.is_none_or(|last| last.elapsed() >= pause);
        if is_due {
            self.last_round = Some(Instant::now());
        }
        is_due
    }

    /// Returns orders that are known to have ended since before `before`, as many as one round settles.
    fn due(&self, before: Timestamp) -> Vec<OrderId> {
        let due = self.suspects.iter().filter(|(_, since)| **since < before).map(|(order_id, _)| *order_id);
        due.take(ROWS_PER_ROUND as usize).collect()
    }

    fn forget(&mut self, orders: &[OrderId]) {
        for order_id in orders {
            self.suspects.remove(order_id);
        }
    }

    /// Notes what was found, as much as is remembered.
    fn found(&mut self, ended: &[Ask], now: Timestamp) {
        for ask in ended {
            if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.entry(ask.order_id()).or_insert(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(byte: u8) -> OrderId {
        OrderId::try_from_bytes(&[byte; 16]).unwrap()
    }

    #[test]
    fn an_ended_order_is_due_when_it_has_been_known_for_long_and_counts_from_the_first_time() {
        let mut walk = Walk::default();
        let at = Timestamp::from_micros;
        walk.found(&[Ask::Release(order(1))], at(10));
        walk.found(&[Ask::Release(order(1)), Ask::ReleaseUnpaid(order(2))], at(20));
        assert!(walk.due(at(10)).is_empty());
        assert_eq!(walk.due(at(11)), [order(1)]);
        assert_eq!(walk.due(at(21)), [order(1), order(2)]);
        walk.forget(&[order(1)]);
        assert_eq!(walk.due(at(21)), [order(2)]);
    }

    #[test]
    fn rounds_have_a_pause_between_them() {
        let mut walk = Walk::default();
        assert!(walk.begin_round(Duration::from_secs(3_600)));
        assert!(!walk.begin_round(Duration::from_secs(3_600)));
        assert!(walk.begin_round(Duration::ZERO));
    }
}
