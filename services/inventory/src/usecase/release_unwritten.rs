//! Gives back committed units of orders that were never written, because the order service died in between or the time
//! limit for the write had passed.
//!
//! Looks up each order once, when its reservation is too old for the order to be written any more. Orders that exist
//! keep their units, which from then on only their messages give back.
//!
//! Reservations that cannot be released are skipped, and retried after all others.

use super::{Error, ReleaseReservations};
use crate::{
    client::Orders,
    store::{self, reservations::Reservation},
};
use stampede_db::{BatchLimit, Bisection, Database, DbError};
use stampede_vocab::{OrderId, Timestamp, limits::least_unwritten_age};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Reservations in one look-up.
const BATCH_SIZE: u32 = 1_024;
/// Interval of full scans of the aged reservations. A scan in between begins where the last full one has ended: while
/// an old snapshot is open, the index keeps the entries of deleted reservations, and a full scan reads them all.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Gives back units of orders that were never written.
pub struct ReleaseUnwritten {
    db: Database,
    orders: Orders,
    release: ReleaseReservations,
    age: Duration,
    /// Most reservations that one transaction releases.
    limit: BatchLimit,
    reached: Mutex<Reached>,
}

/// How far the rounds have come.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// The last reservation that was settled: the cursor from which a round resumes after one that was cut short.
    cursor: Option<Reservation>,
    /// When the last full scan began, and up to which request time it has seen all reservations.
    last_full_scan: Option<(Instant, Timestamp)>,
}

impl Reached {
    /// Returns after which reservation the next round begins, and whether it scans all that are aged.
    fn next_round(&self) -> (Option<Reservation>, bool) {
        let last_full_scan = self.last_full_scan.filter(|(at, _)| at.elapsed() < FULL_SCAN_INTERVAL);
        let is_full = self.cursor.is_none() && last_full_scan.is_none();
        let from = last_full_scan.map(|(_, seen)| (OrderId::from_uuid(Uuid::nil()), seen));
        (self.cursor.or(from), is_full)
    }
}

impl ReleaseUnwritten {
    /// Returns the sweep of reservations older than `age`, which must exceed the time limit for writing an order.
    pub fn new(db: Database, orders: Orders, release: ReleaseReservations, age: Duration) -> Self {
        let limit = BatchLimit::up_to(BATCH_SIZE as usize);
        Self { db, orders, release, age, limit, reached: Mutex::default() }
    }

    /// Settles every reservation that is old enough. One that could not be released waits for the next full scan.
    /// Several replicas may: releases are idempotent.
    pub async fn run(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        let (mut after, is_full) = self.reached().next_round();
        loop {
            let before = Timestamp::now().minus(self.age);
            let aged = self.aged(before, after).await?;
            let last = aged.last().copied();
            let is_last = aged.len() < BATCH_SIZE as usize;
            if !aged.is_empty() {
                self.settle(aged).await?;
            }
            after = last.filter(|_| !is_last);
            self.reached().cursor = after;
            if is_last {
                if is_full {
                    self.reached().last_full_scan = Some((started, before));
                }
                return Ok(());
            }
        }
    }

    fn reached(&self) -> MutexGuard<'_, Reached> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn aged(&self, before: Timestamp, after: Option<Reservation>) -> Result<Vec<Reservation>, Error> {
        let read = self.db.run("aged_reservations", |mut conn| async move {
            store::reservations::aged(&mut conn, before, after, BATCH_SIZE).await
        });
        Ok(read.await?)
    }

    /// Looks these orders up. Confirms the written ones first: they keep their units even if releasing the others
    /// fails. Releases none while the order service is set to write orders for longer than is waited for here.
    async fn settle(&self, aged: Vec<Reservation>) -> anyhow::Result<()> {
        let orders: Vec<OrderId> = aged.iter().map(|(order_id, _)| *order_id).collect();
        let (written, write_limit) = self.orders.needing_units(&orders).await?;
        let (confirmed, unwritten): (Vec<Reservation>, Vec<Reservation>) =
            aged.into_iter().partition(|(order_id, _)| written.contains(order_id));
        let confirmed: Vec<OrderId> = confirmed.into_iter().map(|(order_id, _)| order_id).collect();
        let confirm = self.db.run("confirm_reservations", |mut conn| async move {
            store::reservations::delete(&mut conn, &confirmed).await
        });
        confirm.await?;
        if !unwritten.is_empty() && self.age < least_unwritten_age(write_limit) {
            tracing::error!(
                order.count = unwritten.len(), order.write_limit_ms = %write_limit.as_millis(),
                "units are kept, since order may still write their orders: it has a longer --order-write-limit-ms"
            );
            return Ok(());
        }
        let released = self.release_each(&unwritten).await?;
        if released > 0 {
            tracing::info!(order.count = released, "the units of orders that were never written were given back");
        }
        Ok(())
    }

    /// Releases all in one transaction, or in smaller ones after time-outs. If one fails because of the data, splits it
    /// until the reservation at fault is alone, so that a row that is inconsistent or of a newer release keeps no other
    /// order's units.
    async fn release_each(&self, unwritten: &[Reservation]) -> Result<u32, DbError> {
        let (mut released, mut bisection) = (0, Bisection::of(unwritten.len()));
        while let Some(part) = bisection.next_part_within(self.limit.get()) {
            let tried = part.len();
            match self.release.run(unwritten[part.clone()].to_vec()).await {
                Ok(count) => {
                    self.limit.succeeded(tried);
                    released += count;
                    bisection.part_written(part.map(|_| Ok(())));
                }
                Err(error) if !error.is_of_data() => {
                    self.limit.failed(tried, &error);
                    return Err(error);
                }
                Err(error) => {
                    bisection.part_failed(part, &error);
                }
            }
        }
        log_refused(unwritten, bisection.results());
        Ok(released)
    }
}

/// Logs those that were refused. One line for all, since they are retried in each round.
fn log_refused(unwritten: &[Reservation], results: Vec<Result<(), DbError>>) {
    let results = unwritten.iter().zip(results);
    let refused: Vec<_> = results.filter_map(|((order_id, _), result)| Some((order_id, result.err()?))).collect();
    if let Some((order_id, error)) = refused.first() {
        tracing::error!(
            order.id = %order_id, order.count = refused.len(), error.cause = %error,
            "the units of orders could not be given back"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_round_begins_where_the_last_full_one_has_ended_and_a_full_one_comes_every_few_seconds() {
        let seen = Timestamp::from_micros(7);
        let from = (OrderId::from_uuid(Uuid::nil()), seen);
        let cursor = (OrderId::from_uuid(Uuid::from_u128(1)), seen);
        let mut reached = Reached::default();
        assert_eq!(reached.next_round(), (None, true));
        reached.last_full_scan = Some((Instant::now(), seen));
        assert_eq!(reached.next_round(), (Some(from), false));
        reached.cursor = Some(cursor);
        assert_eq!(reached.next_round(), (Some(cursor), false));
        advance(FULL_SCAN_INTERVAL).await;
        assert_eq!(reached.next_round(), (Some(cursor), false), "one that was cut short is finished first");
        reached.cursor = None;
        assert_eq!(reached.next_round(), (None, true));
    }
}
