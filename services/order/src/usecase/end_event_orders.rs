//! Ends the orders of cancelled events: cancels the unpaid ones, and refunds the paid ones if the operator asked for
//! that.
//!
//! A walk reads the orders of an event in pages, by their arrival, and changes each page in batches. Walks are repeated
//! until all orders have ended: by the next one a payment under way is answered, and an order that was being written is
//! there. Once all have ended, walks go on for an hour, as a safety net.
//!
//! The checkpoint of a walk is in its row, and a walk is leased: if its process dies or is too slow, another resumes it
//! there. A round ends at half of the lease. The walks of one process run round robin, so that a small event does not
//! wait for one of a million orders. The interval grows with time, so that one refund that never succeeds does not have
//! a million orders read over and over; a refund that succeeds brings the next walk forward.

use super::{Transitions, sweep_batches::SweepBatches};
use crate::{
    domain::{Input, Tally, Treatment},
    store::cancellations::{self, Checkpoint, Count, DueWalk, WalkUpdate, WalkedOrder},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Orders of one page.
const PAGE_SIZE: u32 = 500;
/// Most orders of one transaction. A round may end after each.
const BATCH_SIZE: usize = 100;
/// Pages of one round.
const PAGES_PER_ROUND: usize = 4;
/// Most walks of one process at a time. Others that are due wait until one has ended, or for another process.
const MAX_WALKS: usize = 16;
/// Lease of a walk from the end of a round on, for itself and as much again for each walk that is queued before it. The
/// lease saves work and is not needed for safety: a second walk would change nothing.
const LEASE: Duration = Duration::from_secs(10);
/// Time limit of a round: less than a lease.
const ROUND_TIME_LIMIT: Duration = Duration::from_secs(5);
/// Bounds of the pause between two walks. In between it is a part of the time since the cancellation, or since an order
/// last left a terminal state.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
const PAUSE_DIVISOR: u32 = 8;
/// Longest pause until the next walk once an order was refunded.
pub(super) const LONGEST_PAUSE_AFTER_CHANGE: Duration = Duration::from_secs(300);
/// Least time for which walks go on, even if every order has ended.
const MIN_WALKING_TIME: Duration = Duration::from_secs(3_600);

pub struct EndEventOrders {
    db: Database,
    orders: SweepBatches,
    /// Time after a cancellation in which orders that reserved their units before may still be written.
    write_limit: Duration,
    /// The walks under way, the next to run first.
    walks: VecDeque<Walk>,
}

/// A walk through the orders of one event.
struct Walk {
    due: DueWalk,
    checkpoint: Checkpoint,
}

impl EndEventOrders {
    /// Ends orders of this schema through these transitions. An order is written within `write_limit`, or not at all.
    pub fn new(db: Database, transitions: Transitions, write_limit: Duration) -> Self {
        Self { db, orders: SweepBatches::new(transitions, BATCH_SIZE), write_limit, walks: VecDeque::new() }
    }

    /// Claims a walk if one is due, and processes a few pages of the next in the queue. After a failure its last
    /// checkpoint is resumed once the lease has expired, by any process.
    pub async fn run(&mut self) -> Result<(), DbError> {
        if self.walks.len() < MAX_WALKS
            && let Some(claimed) = self.claim().await?
        {
            // This process had lost the lease of the same walk.
            self.walks.retain(|walk| walk.due.event != claimed.due.event);
            self.walks.push_back(claimed);
        }
        let Some(mut walk) = self.walks.pop_front() else { return Ok(()) };
        let until = Instant::now() + ROUND_TIME_LIMIT;
        for _ in 0..PAGES_PER_ROUND {
            if self.process_page(&mut walk, until).await? {
                return self.finish(walk).await;
            }
            if Instant::now() >= until {
                break;
            }
        }
        // The first walk takes as long as ending all orders does, so its counts are shown as they grow.
        let count = (!walk.due.is_counted).then(|| walk.count(false, false));
        if self.save(&mut walk, WalkUpdate::Continue(self.lease()), count).await? {
            self.walks.push_back(walk);
        }
        Ok(())
    }

    /// Returns the end of the lease of a walk that is queued now.
    fn lease(&self) -> Timestamp {
        let rounds = u32::try_from(self.walks.len()).unwrap_or(u32::MAX).saturating_add(1);
        Timestamp::now().plus(LEASE.saturating_mul(rounds))
    }

    /// Claims the walk that is most overdue: a new one, or one whose lease has expired.
    async fn claim(&self) -> Result<Option<Walk>, DbError> {
        let now = Timestamp::now();
        let due = self.db.run("due_walks", |mut conn| async move { cancellations::due(&mut conn, now).await }).await?;
        let Some(due) = due else { return Ok(None) };
        let lease =
            if due.checkpoint.is_some() { WalkUpdate::Continue(self.lease()) } else { WalkUpdate::Start(self.lease()) };
        let mut walk = Walk { due, checkpoint: due.checkpoint.unwrap_or_else(|| Checkpoint::start(now)) };
        let is_held = self.save(&mut walk, lease, None).await?;
        Ok(is_held.then_some(walk))
    }

    /// Processes the next page, or as much of it as there is time for. Returns whether it was the last one.
    async fn process_page(&mut self, walk: &mut Walk, until: Instant) -> Result<bool, DbError> {
        let (event, after) = (walk.due.event, walk.checkpoint.after);
        let read = self.db.run("walk_event_orders", |mut conn| async move {
            cancellations::walk(&mut conn, event, after, PAGE_SIZE).await
        });
        let page: Vec<WalkedOrder> = read.await?;
        let mut left = page.as_slice();
        while !left.is_empty() {
            let (part, behind) = left.split_at(self.orders.limit().min(left.len()));
            left = behind;
            self.treat(walk, part).await?;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        Ok(page.len() < PAGE_SIZE as usize)
    }

    async fn treat(&mut self, walk: &mut Walk, part: &[WalkedOrder]) -> Result<(), DbError> {
        let (cancel, refund) = walk.sort(part);
        let (to_cancel, to_refund) = (count_of(cancel.len()), count_of(refund.len()));
        let cancelled = self.end(cancel, walk.due.refund_paid).await?;
        let refunding = self.end(refund, walk.due.refund_paid).await?;
        walk.checkpoint.tally.count_cancelled(to_cancel, cancelled);
        walk.checkpoint.tally.count_refunding(to_refund, refunding);
        if let Some(last) = part.last() {
            walk.checkpoint.after = Some(last.position);
        }
        Ok(())
    }

    /// Returns how many of the orders have changed. One that has changed meanwhile is left to the next walk.
    async fn end(&mut self, orders: Vec<OrderId>, refund_paid: bool) -> Result<i32, DbError> {
        if orders.is_empty() {
            return Ok(0);
        }
        let ended = self.orders.run("end_event_orders", &Input::EventCancelled { refund_paid }, orders).await?;
        Ok(count_of(ended))
    }

    /// Stores the counts, and when the next walk is due.
    async fn finish(&self, mut walk: Walk) -> Result<(), DbError> {
        let Checkpoint { started_at, tally, .. } = walk.checkpoint;
        let may_be_written = started_at.since(walk.due.received_at) < self.write_limit;
        let is_settled = tally.is_settled() && !may_be_written;
        let now = Timestamp::now();
        let next = |longest| next_walk(now, walk.due.reopened_at, is_settled, longest);
        // A refund that was not committed when this walk began may have counted for the previous one only. One more
        // walk sees it.
        let longest = if walk.due.has_changed { LONGEST_PAUSE_AFTER_CHANGE } else { LONGEST_PAUSE };
        let lease = WalkUpdate::Finish { now, next: next(longest), if_changed: next(LONGEST_PAUSE_AFTER_CHANGE) };
        let count = walk.count(true, is_settled);
        let is_held = self.save(&mut walk, lease, Some(count)).await?;
        if is_settled && is_held && !walk.due.was_settled {
            let Tally { ended, kept, refunded, .. } = tally;
            tracing::info!(
                event.id = %walk.due.event,
                ended_order.count = ended,
                kept_order.count = kept,
                refunded_order.count = refunded,
                "every order of a cancelled event has ended"
            );
        }
        Ok(())
    }

    async fn save(&self, walk: &mut Walk, lease: WalkUpdate, count: Option<Count>) -> Result<bool, DbError> {
        let (due, checkpoint) = (walk.due, walk.checkpoint);
        let written = self.db.run("pass_walk_on", |mut conn| async move {
            cancellations::save_walk(&mut conn, &due, lease, checkpoint, count).await
        });
        let is_held = written.await?;
        if let Some(token) = lease.token() {
            walk.due.token = token;
        }
        Ok(is_held)
    }
}

impl Walk {
    /// Returns the orders to cancel and those to refund. Counts the others.
    fn sort(&mut self, part: &[WalkedOrder]) -> (Vec<OrderId>, Vec<OrderId>) {
        let (mut cancel, mut refund) = (Vec::new(), Vec::new());
        let refund_paid = self.due.refund_paid;
        for walked in part {
            // Left to a replica of the version that knows this state.
            let Some(state) = walked.state else {
                self.checkpoint.tally.remaining = self.checkpoint.tally.remaining.saturating_add(1);
                continue;
            };
            match Treatment::of(state, refund_paid) {
                Treatment::Cancel => cancel.push(walked.order()),
                Treatment::Refund => refund.push(walked.order()),
                Treatment::None => self.checkpoint.tally.count(state, refund_paid),
            }
        }
        (cancel, refund)
    }

    fn count(&self, is_whole: bool, is_settled: bool) -> Count {
        Count { tally: self.checkpoint.tally, at: Timestamp::now(), is_whole, is_settled }
    }
}

fn count_of(orders: usize) -> i32 {
    i32::try_from(orders).unwrap_or(i32::MAX)
}

/// Returns when the next walk is due, after `longest` at most; `None` if there is none.
fn next_walk(now: Timestamp, reopened_at: Timestamp, is_settled: bool, longest: Duration) -> Option<Timestamp> {
    let open_for = now.since(reopened_at);
    let is_over = is_settled && open_for >= MIN_WALKING_TIME;
    (!is_over).then(|| now.plus((open_for / PAUSE_DIVISOR).clamp(SHORTEST_PAUSE, longest)))
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
