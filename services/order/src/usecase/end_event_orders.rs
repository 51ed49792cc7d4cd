//! Ends the orders of cancelled events: cancels those that are not paid, and refunds those that are if the operator
//! wants it so.
//!
//! The orders of an event are walked through in pages by their arrival, and each page is changed in batches. A walk is
//! followed by another one until all have ended: a payment that was under way is answered, and an order that was being
//! written is there by then. What a walk has done is done, so one that is broken off by the death of its process is
//! followed by one that finds less to do. After the end it comes by now and then for an hour, for what nobody expects. The
//! walks of one process take turns, so that an event of a few orders does not wait behind one of a million.

use super::{Transitions, each_alone::EachAlone};
use crate::{
    domain::{Input, Tally, Treatment},
    store::cancellations::{self, Count, DueWalk, Turn, Walked},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::{collections::VecDeque, time::Duration};
use uuid::Uuid;

/// Orders of one read.
const PAGE_SIZE: u32 = 500;
/// Most orders of one transaction.
const BATCH_SIZE: usize = 100;
/// Pages of one round.
const PAGES_PER_ROUND: usize = 4;
/// Most walks of one process that take turns. What is due beyond them waits until one has ended, or for another process.
const MAX_WALKS: usize = 16;
/// How long a walk has the orders for itself from the end of each round on, for each walk that has its turn before it and
/// for itself; longer than a round takes. Of two walks of one event one would do what the other does, and change nothing.
const LEASE: Duration = Duration::from_secs(10);
/// Shortest and longest time between two walks. In between it is a part of the time since the cancellation.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const PAUSE_PART: u32 = 8;
/// How long walks go on at least, though everything has ended.
const WATCH: Duration = Duration::from_secs(3_600);

/// Ends orders of cancelled events.
pub struct EndEventOrders {
    db: Database,
    orders: EachAlone,
    /// From the cancellation on, until no order can be written any more that had its units before.
    write_limit: Duration,
    /// The walks under way, that whose turn it is first.
    walks: VecDeque<Walk>,
}

/// A walk through the orders of one event.
struct Walk {
    due: DueWalk,
    begun_at: Timestamp,
    after: Option<(i64, Uuid)>,
    tally: Tally,
}

impl EndEventOrders {
    /// Ends orders of this schema through these transitions. An order is written within `write_limit`, or not at all.
    pub fn new(db: Database, transitions: Transitions, write_limit: Duration) -> Self {
        Self { db, orders: EachAlone::new(transitions), write_limit, walks: VecDeque::new() }
    }

    /// Begins a walk that is due, and goes on for a few pages with that whose turn it is. After a failure somebody begins
    /// anew once the lease of the walk has run out.
    pub async fn run(&mut self) -> Result<(), DbError> {
        if self.walks.len() < MAX_WALKS
            && let Some(begun) = self.begin().await?
        {
            // It was this process's own, and too late.
            self.walks.retain(|walk| walk.due.event != begun.due.event);
            self.walks.push_back(begun);
        }
        let Some(mut walk) = self.walks.pop_front() else { return Ok(()) };
        for _ in 0..PAGES_PER_ROUND {
            if self.walk_on(&mut walk).await? {
                return self.finish(walk).await;
            }
        }
        // The first count takes as long as ending all orders does, so it is shown as it grows.
        let count = (!walk.due.is_counted).then(|| walk.count(false, false));
        if self.pass_on(&mut walk, Turn::GoesOn(self.lease()), count).await? {
            self.walks.push_back(walk);
        }
        Ok(())
    }

    /// Until when a walk has the orders that gets in line now.
    fn lease(&self) -> Timestamp {
        let turns = u32::try_from(self.walks.len()).unwrap_or(u32::MAX).saturating_add(1);
        Timestamp::now().plus(LEASE.saturating_mul(turns))
    }

    async fn begin(&self) -> Result<Option<Walk>, DbError> {
        let now = Timestamp::now();
        let due = self.db.run("due_walks", |mut conn| async move { cancellations::due(&mut conn, now).await }).await?;
        let Some(due) = due else { return Ok(None) };
        let mut walk = Walk { due, begun_at: now, after: None, tally: Tally::default() };
        let is_ours = self.pass_on(&mut walk, Turn::Begins(self.lease()), None).await?;
        Ok(is_ours.then_some(walk))
    }

    /// Treats the next page. Returns whether it was the last one.
    async fn walk_on(&mut self, walk: &mut Walk) -> Result<bool, DbError> {
        let (event, after) = (walk.due.event, walk.after);
        let read = self.db.run("walk_event_orders", |mut conn| async move {
            cancellations::walk(&mut conn, event, after, PAGE_SIZE).await
        });
        let page: Vec<Walked> = read.await?;
        let (cancel, refund) = walk.sort(&page);
        let cancelled = self.end(&cancel, walk.due.refund_paid).await?;
        walk.tally.count_cancelled(count_of(cancel.len()), cancelled);
        let refunding = self.end(&refund, walk.due.refund_paid).await?;
        walk.tally.count_refunding(count_of(refund.len()), refunding);
        if let Some(last) = page.last() {
            walk.after = Some(last.place);
        }
        Ok(page.len() < PAGE_SIZE as usize)
    }

    /// Returns how many of the orders have changed. One that has moved on meanwhile is looked at by the next walk.
    async fn end(&mut self, orders: &[OrderId], refund_paid: bool) -> Result<i32, DbError> {
        let mut ended = 0;
        for batch in orders.chunks(BATCH_SIZE) {
            ended +=
                self.orders.run("end_event_orders", &Input::EventCancelled { refund_paid }, batch.to_vec()).await?;
        }
        Ok(count_of(ended))
    }

    /// Writes what was counted, and when the next walk is due.
    async fn finish(&self, mut walk: Walk) -> Result<(), DbError> {
        let may_be_written = walk.begun_at.since(walk.due.received_at) < self.write_limit;
        let is_settled = walk.tally.is_settled() && !may_be_written;
        let now = Timestamp::now();
        let next = next_walk(now, walk.due.received_at, is_settled);
        let count = walk.count(true, is_settled);
        let is_ours = self.pass_on(&mut walk, Turn::Ends { now, next }, Some(count)).await?;
        if is_settled && is_ours && !walk.due.was_settled {
            let Tally { ended, kept, refunded, .. } = walk.tally;
            tracing::info!(
                event.id = %walk.due.event, order.ended = ended, order.kept = kept, order.refunded = refunded,
                "every order of a cancelled event has ended"
            );
        }
        Ok(())
    }

    async fn pass_on(&self, walk: &mut Walk, turn: Turn, count: Option<Count>) -> Result<bool, DbError> {
        let due = walk.due;
        let written = self
            .db
            .run("pass_walk_on", |mut conn| async move { cancellations::pass_on(&mut conn, &due, turn, count).await });
        let is_ours = written.await?;
        if let Some(token) = turn.token() {
            walk.due.token = token;
        }
        Ok(is_ours)
    }
}

impl Walk {
    /// Returns the orders of the page that are to be cancelled, and those to be refunded. Counts the others.
    fn sort(&mut self, page: &[Walked]) -> (Vec<OrderId>, Vec<OrderId>) {
        let (mut cancel, mut refund) = (Vec::new(), Vec::new());
        let refund_paid = self.due.refund_paid;
        for walked in page {
            // One of a newer version is left to a replica of that.
            let Some(state) = walked.state else {
                self.tally.remaining = self.tally.remaining.saturating_add(1);
                continue;
            };
            match Treatment::of(state, refund_paid) {
                Treatment::Cancel => cancel.push(walked.order()),
                Treatment::Refund => refund.push(walked.order()),
                Treatment::None => self.tally.count(state, refund_paid),
            }
        }
        (cancel, refund)
    }

    fn count(&self, is_whole: bool, is_settled: bool) -> Count {
        Count { tally: self.tally, at: Timestamp::now(), is_whole, is_settled }
    }
}

fn count_of(orders: usize) -> i32 {
    i32::try_from(orders).unwrap_or(i32::MAX)
}

/// Returns when the orders are to be walked through next; `None` if they are left alone from now on.
fn next_walk(now: Timestamp, received_at: Timestamp, is_settled: bool) -> Option<Timestamp> {
    let known_for = now.since(received_at);
    let is_over = is_settled && known_for >= WATCH;
    (!is_over).then(|| now.plus((known_for / PAUSE_PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_become_rarer_and_end_an_hour_after_everything_has() {
        let start = Timestamp::from_micros(0);
        let pause = |seconds, is_settled| {
            let now = start.plus(Duration::from_secs(seconds));
            next_walk(now, start, is_settled).map(|next| next.since(now))
        };
        assert_eq!(pause(0, false), Some(SHORTEST_PAUSE));
        assert_eq!(pause(80, true), Some(Duration::from_secs(10)));
        assert_eq!(pause(86_400, false), Some(LONGEST_PAUSE), "a refund is still on its way");
        assert_eq!(pause(3_600, true), None);
    }
}
