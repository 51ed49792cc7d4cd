//! Gives back the units of ended orders whose message was discarded by an operator, or lost with a restored database.
//!
//! It walks through the whole ledger in pages, and looks up the orders of committed rows at the order service. An order
//! that has ended is looked up again once it must have given its units back long since. Its command is then executed as
//! by its message, under the same locks: a repeat, or one before a late payment, changes no more than the message does.
//!
//! The replicas take turns at the walk and share its cursor, so it reaches its end however often processes are
//! replaced. A replica settles the orders that it has found; if it dies, the next walk finds them again.

use super::{
    SyncRedis,
    ledger::{lock_ledger, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::{
    client::Orders,
    domain::LedgerCommand,
    store::{
        self,
        walks::{self, Turn},
    },
};
use opentelemetry::{global, metrics::Counter};
use sqlx::MySqlConnection;
use stampede_db::{BatchLimit, Bisection, Database, DbError, Statements};
use stampede_vocab::{ItemId, OrderId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Rows of the ledger that one round reads, and most orders that it settles.
const ROWS_PER_ROUND: u32 = 1_024;
/// Most orders that wait to be settled. The next walk finds the others.
const MAX_SUSPECTS: usize = 16 * 1_024;
/// Rounds within the age at which an ended order is due.
const ROUNDS_PER_AGE: u32 = 30;
/// Lease of a turn: longer than a round may take. If its holder dies, the others wait until it expires.
const TURN: Duration = Duration::from_secs(60);

/// Gives back units that ended orders have kept.
pub struct ReleaseEnded {
    db: Database,
    orders: Orders,
    sync: SyncRedis,
    age: Duration,
    /// Most orders that one transaction settles.
    limit: BatchLimit,
    walk: Mutex<Walk>,
    released: Counter<u64>,
}

/// The state of the walk in this replica.
#[derive(Default)]
struct Walk {
    last_round: Option<Instant>,
    /// Ended orders that still had units, with the time at which they were first found.
    suspects: BTreeMap<OrderId, Timestamp>,
}

impl ReleaseEnded {
    /// Returns the sweep of the ledger of this schema. It gives back the units of orders that were found ended longer
    /// than `age` ago.
    pub fn new(db: Database, orders: Orders, sync: SyncRedis, age: Duration) -> Self {
        let released = global::meter("stampede.inventory")
            .u64_counter("stampede_ledger_overdue_releases")
            .with_description("Ended orders whose units were given back without their message")
            .build();
        let limit = BatchLimit::up_to(ROWS_PER_ROUND as usize);
        Self { db, orders, sync, age, limit, walk: Mutex::default(), released }
    }

    /// Makes a round if one is due. Several replicas may: releases are idempotent.
    pub async fn run(&self) -> anyhow::Result<()> {
        // Adds 0, so that the counter exists before the first release.
        self.released.add(0, &[]);
        let is_due = self.walk().begin_round(self.interval());
        if !is_due {
            return Ok(());
        }
        self.settle().await?;
        self.continue_walk().await
    }

    /// Gives back the units of due orders.
    async fn settle(&self) -> anyhow::Result<()> {
        let due = self.walk().due(Timestamp::now().minus(self.age));
        if due.is_empty() {
            return Ok(());
        }
        let commands = self.orders.ended(&due).await?;
        self.release_all(&commands).await?;
        self.walk().forget(&due);
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.age / ROUNDS_PER_AGE
    }

    /// Continues the walk, unless another replica has the turn.
    async fn continue_walk(&self) -> anyhow::Result<()> {
        let Some(turn) = self.begin_turn().await? else { return Ok(()) };
        let scanned = self.scan_after(turn.after).await;
        // After a failure the next turn reads the same rows.
        let reached = scanned.as_ref().map_or(turn.after, |reached| *reached);
        self.end_turn(turn, reached).await?;
        scanned.map(drop)
    }

    async fn begin_turn(&self) -> Result<Option<Turn>, DbError> {
        let now = Timestamp::now();
        let begin = self.db.run("begin_turn", |mut conn| async move {
            walks::begin(&mut conn, walks::ENDED_ORDERS, now, now.plus(TURN)).await
        });
        begin.await
    }

    async fn end_turn(&self, turn: Turn, reached: Option<(OrderId, ItemId)>) -> Result<(), DbError> {
        // Half the interval, so that the next round of this replica is not too early for its turn.
        let next = Timestamp::now().plus(self.interval() / 2);
        let end = self.db.run("end_turn", |mut conn| async move {
            walks::end(&mut conn, walks::ENDED_ORDERS, turn, reached, next).await
        });
        end.await
    }

    /// Notes the ended orders of the next rows after this one. Returns the last row read; `None` at the end of the
    /// ledger.
    async fn scan_after(&self, after: Option<(OrderId, ItemId)>) -> anyhow::Result<Option<(OrderId, ItemId)>> {
        let read = self.db.run("committed_units", |mut conn| async move {
            store::ledger::page(&mut conn, after, ROWS_PER_ROUND).await
        });
        let rows = read.await?;
        let before = Timestamp::now().minus(self.age);
        let is_old = |at: Option<Timestamp>| at.is_some_and(|at| at < before);
        let orders: BTreeSet<OrderId> =
            rows.iter().filter(|(_, _, at)| is_old(*at)).map(|(order_id, _, _)| *order_id).collect();
        let ended = self.orders.ended(&orders.into_iter().collect::<Vec<_>>()).await?;
        self.walk().add_suspects(&ended, Timestamp::now());
        let is_last = rows.len() < ROWS_PER_ROUND as usize;
        Ok(rows.last().filter(|_| !is_last).map(|(order_id, item_id, _)| (*order_id, *item_id)))
    }

    /// Executes all in one transaction, or in smaller ones after time-outs. If one fails because of the data, splits it
    /// until the order at fault is alone, so that a row that is inconsistent or of a newer release keeps no other
    /// order's units.
    async fn release_all(&self, commands: &[LedgerCommand]) -> Result<(), DbError> {
        let mut bisection = Bisection::of(commands.len());
        while let Some(part) = bisection.next_part_within(self.limit.get()) {
            let (first, tried) = (part.start, part.len());
            match self.release(commands[part.clone()].to_vec()).await {
                Ok(released) => {
                    // Now, so that a later part that times out does not have this one settled again.
                    let settled: Vec<OrderId> = commands[part.clone()].iter().map(LedgerCommand::order_id).collect();
                    self.walk().forget(&settled);
                    self.limit.succeeded(tried);
                    self.count(released);
                    bisection.part_written(part.map(|_| Ok(())));
                }
                // The next round tries those that are left again.
                Err(error) if !error.is_of_data() => {
                    self.limit.failed(tried, &error);
                    return Err(error);
                }
                Err(error) => {
                    let is_halved = bisection.part_failed(part, &error);
                    if !is_halved {
                        tracing::error!(
                            order.id = %commands[first].order_id(), error.cause = %error,
                            "the units of an order could not be given back"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&self, released: u64) {
        if released > 0 {
            self.released.add(released, &[]);
            tracing::warn!(order.count = released, "the units of ended orders were given back without their message");
        }
    }

    /// Executes these commands on the ledger, and copies the changes to Redis. Returns how many orders gave units back.
    async fn release(&self, commands: Vec<LedgerCommand>) -> Result<u64, DbError> {
        let commands = Arc::new(commands);
        let work = self.db.transact("release_ended_orders", move |conn| {
            let commands = commands.clone();
            Box::pin(async move { release(conn, &commands).await })
        });
        let (released, syncs) = work.await?;
        self.sync.run(syncs).await;
        Ok(released)
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn release(conn: &mut MySqlConnection, commands: &[LedgerCommand]) -> Result<(u64, Vec<EventSync>), DbError> {
    let orders: BTreeSet<OrderId> = commands.iter().map(LedgerCommand::order_id).collect();
    let mut ledger = lock_ledger(conn, orders, BTreeSet::new()).await?;
    let now = Timestamp::now();
    for command in commands {
        // A release has no answer.
        ledger.apply(command, now);
    }
    let changes = ledger.changes();
    let mut writes = Statements::new();
    push_changes(&mut writes, &changes);
    writes.run(conn).await?;
    let released: BTreeSet<OrderId> = changes.entries.iter().map(|entry| entry.order_id).collect();
    Ok((u64::try_from(released.len()).unwrap_or(u64::MAX), syncs(&changes, [], now)))
}

impl Walk {
    /// Returns whether a round is due, and begins it then.
    fn begin_round(&mut self, interval: Duration) -> bool {
        let is_due = self.last_round.is_none_or(|last| last.elapsed() >= interval);
        if is_due {
            self.last_round = Some(Instant::now());
        }
        is_due
    }

    /// Returns the orders that were first found before `before`, as many as one round settles.
    fn due(&self, before: Timestamp) -> Vec<OrderId> {
        let due = self.suspects.iter().filter(|(_, since)| **since < before).map(|(order_id, _)| *order_id);
        due.take(ROWS_PER_ROUND as usize).collect()
    }

    fn forget(&mut self, orders: &[OrderId]) {
        for order_id in orders {
            self.suspects.remove(order_id);
        }
    }

    /// Adds orders that were found, up to the limit.
    fn add_suspects(&mut self, ended: &[LedgerCommand], now: Timestamp) {
        for command in ended {
            if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.entry(command.order_id()).or_insert(now);
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
        walk.add_suspects(&[LedgerCommand::Release(order(1))], at(10));
        walk.add_suspects(&[LedgerCommand::Release(order(1)), LedgerCommand::ReleaseUnpaid(order(2))], at(20));
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
