//! Ends the orders of cancelled events: cancels those that are not paid, and refunds those that are if the operator
//! wants it so.
//!
//! The orders of an event are walked through in pages by their arrival, and each page is changed in batches. A walk is
//! followed by another one until all have ended: a payment that was under way is answered, and an order that was being
//! written is there by then. After the end it comes by now and then for an hour, for what nobody expects.
//!
//! The place of a walk is in its row, so one that is broken off by the death of its process, or takes too long, goes on
//! there with another. A round ends at half of its lease. The walks of one process take turns, so that an event of a
//! few orders does not wait behind one of a million. They become rarer as time goes by, so that one refund that nobody
//! can carry out does not have a million orders read over and over; money that comes back brings the next one forward.

use super::{Transitions, each_alone::EachAlone};
use crate::{
    domain::{Input, Tally, Treatment},
    store::cancellations::{self, Count, DueWalk, Reached, Turn, Walked},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Orders of one read.
const PAGE_SIZE: u32 = 500;
/// Most orders of one transaction, and orders after which a round may end.
const BATCH_SIZE: usize = 100;
/// Pages of one round.
const PAGES_PER_ROUND: usize = 4;
/// Most walks of one process that take turns. What is due beyond them waits until one has ended, or for another
/// process.
const MAX_WALKS: usize = 16;
/// How long a walk has the orders for itself from the end of each round on, for each walk that has its turn before it
/// and for itself. Of two walks of one event one would do what the other does, and change nothing.
const LEASE: Duration = Duration::from_secs(10);
/// Time after which a round ends, so that the lease does not.
const ROUND: Duration = Duration::from_secs(5);
/// Shortest and longest time between two walks. In between it is a part of the time since the cancellation, or since an
/// order began again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
const PAUSE_PART: u32 = 8;
/// Longest time until the next walk once the money of an order has come back.
pub(super) const LONGEST_PAUSE_AFTER_CHANGE: Duration = Duration::from_secs(300);
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
    reached: Reached,
}

impl EndEventOrders {
    /// Ends orders of this schema through these transitions. An order is written within `write_limit`, or not at all.
    pub fn new(db: Database, transitions: Transitions, write_limit: Duration) -> Self {
        Self { db, orders: EachAlone::new(transitions), write_limit, walks: VecDeque::new() }
    }

    /// Takes a walk that is due, and goes on for a few pages with that whose turn it is. After a failure somebody goes
    /// on from the end of its last round once the lease of the walk has run out.
    pub async fn run(&mut self) -> Result<(), DbError> {
        if self.walks.len() < MAX_WALKS
            && let Some(taken) = self.take().await?
        {
            // It was this process's own, and too late.
            self.walks.retain(|walk| walk.due.event != taken.due.event);
            self.walks.push_back(taken);
        }
        let Some(mut walk) = self.walks.pop_front() else { return Ok(()) };
        let until = Instant::now() + ROUND;
        for _ in 0..PAGES_PER_ROUND {
            if self.walk_on(&mut walk, until).await? {
                return self.finish(walk).await;
            }
            if Instant::now() >= until {
                break;
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

    /// Takes a walk that is due: a new one, or one that somebody has begun and does not go on with.
    async fn take(&self) -> Result<Option<Walk>, DbError> {
        let now = Timestamp::now();
        let due = self.db.run("due_walks", |mut conn| async move { cancellations::due(&mut conn, now).await }).await?;
        let Some(due) = due else { return Ok(None) };
        let turn = if due.reached.is_some() { Turn::GoesOn(self.lease()) } else { Turn::Begins(self.lease()) };
        let mut walk = Walk { due, reached: due.reached.unwrap_or_else(|| Reached::start(now)) };
        let is_ours = self.pass_on(&mut walk, turn, None).await?;
        Ok(is_ours.then_some(walk))
    }

    /// Treats the next page, or the part of it for which there is time. Returns whether it was the last one.
    async fn walk_on(&mut self, walk: &mut Walk, until: Instant) -> Result<bool, DbError> {
        let (event, after) = (walk.due.event, walk.reached.after);
        let read = self.db.run("walk_event_orders", |mut conn| async move {
            cancellations::walk(&mut conn, event, after, PAGE_SIZE).await
        });
        let page: Vec<Walked> = read.await?;
        for part in page.chunks(BATCH_SIZE) {
            self.treat(walk, part).await?;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        Ok(page.len() < PAGE_SIZE as usize)
    }

    async fn treat(&mut self, walk: &mut Walk, part: &[Walked]) -> Result<(), DbError> {
        let (cancel, refund) = walk.sort(part);
        let (to_cancel, to_refund) = (count_of(cancel.len()), count_of(refund.len()));
        let cancelled = self.end(cancel, walk.due.refund_paid).await?;
        let refunding = self.end(refund, walk.due.refund_paid).await?;
        walk.reached.tally.count_cancelled(to_cancel, cancelled);
        walk.reached.tally.count_refunding(to_refund, refunding);
        if let Some(last) = part.last() {
            walk.reached.after = Some(last.place);
        }
        Ok(())
    }

    /// Returns how many of the orders have changed. One that has moved on meanwhile is looked at by the next walk.
    async fn end(&mut self, orders: Vec<OrderId>, refund_paid: bool) -> Result<i32, DbError> {
        if orders.is_empty() {
            return Ok(0);
        }
        let ended = self.orders.run("end_event_orders", &Input::EventCancelled { refund_paid }, orders).await?;
        Ok(count_of(ended))
    }

    /// Writes what was counted, and when the next walk is due.
    async fn finish(&self, mut walk: Walk) -> Result<(), DbError> {
        let Reached { begun_at, tally, .. } = walk.reached;
        let may_be_written = begun_at.since(walk.due.received_at) < self.write_limit;
        let is_settled = tally.is_settled() && !may_be_written;
        let now = Timestamp::now();
        let next = |longest| next_walk(now, walk.due.begun_again_at, is_settled, longest);
        // Money whose transaction had not ended when this walk began is noted for the walk before: one more sees it.
        let longest = if walk.due.has_changed { LONGEST_PAUSE_AFTER_CHANGE } else { LONGEST_PAUSE };
        let turn = Turn::Ends { now, next: next(longest), if_changed: next(LONGEST_PAUSE_AFTER_CHANGE) };
        let count = walk.count(true, is_settled);
        let is_ours = self.pass_on(&mut walk, turn, Some(count)).await?;
        if is_settled && is_ours && !walk.due.was_settled {
            let Tally { ended, kept, refunded, .. } = tally;
            tracing::info!(
                event.id = %walk.due.event, order.ended = ended, order.kept = kept, order.refunded = refunded,
                "every order of a cancelled event has ended"
            );
        }
        Ok(())
    }

    async fn pass_on(&self, walk: &mut Walk, turn: Turn, count: Option<Count>) -> Result<bool, DbError> {
        let (due, reached) = (walk.due, walk.reached);
        let written = self.db.run("pass_walk_on", |mut conn| async move {
            cancellations::pass_on(&mut conn, &due, turn, reached, count).await
        });
        let is_ours = written.await?;
        if let Some(token) = turn.token() {
            walk.due.token = token;
        }
        Ok(is_ours)
    }
}

impl Walk {
    /// Returns the orders of a part that are to be cancelled, and those to be refunded. Counts the others.
    fn sort(&mut self, part: &[Walked]) -> (Vec<OrderId>, Vec<OrderId>) {
        let (mut cancel, mut refund) = (Vec::new(), Vec::new());
        let refund_paid = self.due.refund_paid;
        for walked in part {
            // One of a newer version is left to a replica of that.
            let Some(state) = walked.state else {
                self.reached.tally.remaining = self.reached.tally.remaining.saturating_add(1);
                continue;
            };
            match Treatment::of(state, refund_paid) {
                Treatment::Cancel => cancel.push(walked.order()),
                Treatment::Refund => refund.push(walked.order()),
                Treatment::None => self.reached.tally.count(state, refund_paid),
            }
        }
        (cancel, refund)
    }

    fn count(&self, is_whole: bool, is_settled: bool) -> Count {
        Count { tally: self.reached.tally, at: Timestamp::now(), is_whole, is_settled }
    }
}

fn count_of(orders: usize) -> i32 {
    i32::try_from(orders).unwrap_or(i32::MAX)
}

/// Returns when the orders are to be walked through next, after `longest` at most; `None` if they are left alone from
/// now on.
fn next_walk(now: Timestamp, begun_again_at: Timestamp, is_settled: bool, longest: Duration) -> Option<Timestamp> {
    let known_for = now.since(begun_again_at);
    let is_over = is_settled && known_for >= WATCH;
    (!is_over).then(|| now.plus((known_for / PAUSE_PART).clamp(SHORTEST_PAUSE, longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_become_rarer_and_end_an_hour_after_everything_has() {
        let start = Timestamp::from_micros(0);
        let pause_up_to = |longest, seconds, is_settled| {
            let now = start.plus(Duration::from_secs(seconds));
            next_walk(now, start, is_settled, longest).map(|next| next.since(now))
        };
        let pause = |seconds, is_settled| pause_up_to(LONGEST_PAUSE, seconds, is_settled);
        assert_eq!(pause(0, false), Some(SHORTEST_PAUSE));
        assert_eq!(pause(80, true), Some(Duration::from_secs(10)));
        assert_eq!(pause(86_400, false), Some(Duration::from_secs(10_800)), "a refund is still on its way");
        assert_eq!(pause(86_400 * 30, false), Some(LONGEST_PAUSE));
        assert_eq!(pause_up_to(LONGEST_PAUSE_AFTER_CHANGE, 86_400, false), Some(LONGEST_PAUSE_AFTER_CHANGE));
        assert_eq!(pause(3_600, true), None);
    }
}
