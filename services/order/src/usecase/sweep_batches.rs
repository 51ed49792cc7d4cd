//! Changes that a sweep makes to many orders. One that fails does not block the others: a batch is bisected until the
//! failing order is alone, and that order is retried with back-off. One that takes too long is smaller the next time.

use super::{Change, Outcome, Transitions};
use crate::domain::Input;
use stampede_db::{BatchLimit, Bisection, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Most failures of single orders a page. After them the rest of the page is left to the next round.
const MAX_FAILURES: usize = 16;
/// First back-off of an order whose change failed. It doubles with each failure, [`MAX_DOUBLINGS`] times at most.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 6;
/// Most orders in back-off that are remembered.
const MAX_BACKED_OFF: usize = 10_000;

/// Applies an input to many orders. Skips locked orders, and those that cannot be read or whose change the database
/// refuses; the last two are logged, once an order.
pub struct SweepBatches {
    transitions: Transitions,
    /// Most orders of one transaction.
    limit: BatchLimit,
    logged: HashSet<OrderId>,
    backed_off: BackedOff,
    /// Whether the previous page was cut short.
    was_cut_short: bool,
}

impl SweepBatches {
    /// Changes so many orders in one transaction at most.
    pub fn new(transitions: Transitions, most: usize) -> Self {
        let limit = BatchLimit::up_to(most);
        Self { transitions, limit, logged: HashSet::new(), backed_off: BackedOff::default(), was_cut_short: false }
    }

    /// Applies the input to a page of orders, in transactions of this name. Returns the number of orders that changed.
    /// A batch that the database refuses is bisected until the order at fault is alone. Fails if the database is at
    /// fault and not the data; two pages in a row with too many failures are taken for that. After a time-out the next
    /// call tries fewer orders in one transaction.
    pub async fn run(&mut self, name: &'static str, input: &Input, orders: Vec<OrderId>) -> Result<usize, DbError> {
        if orders.is_empty() {
            return Ok(0);
        }
        let now = Timestamp::now();
        let ready: Vec<OrderId> = orders.into_iter().filter(|order| !self.backed_off.contains(*order, now)).collect();
        let (mut moved, mut failures, mut bisection) = (0, 0, Bisection::of(ready.len()));
        while let Some(part) = bisection.next_part_within(self.limit.get()) {
            let batch = &ready[part.clone()];
            let change = |order: &OrderId| Change { order: *order, input: input.clone(), traceparent: None };
            let applied = self.transitions.run_unlocked(name, batch.iter().map(change).collect()).await;
            match applied {
                Ok(outcomes) => {
                    // Orders that are locked show nothing: a batch that has timed out may still have them.
                    if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown)) {
                        self.limit.succeeded(batch.len());
                    }
                    moved += self.moved(batch, &outcomes);
                    bisection.part_written(part.map(|_| Ok(())));
                }
                Err(error) if !error.is_reproducible() => {
                    self.limit.failed(batch.len(), &error);
                    return Err(error);
                }
                Err(error) => {
                    if bisection.part_failed(part, &error) {
                        continue;
                    }
                    self.failed(batch[0], &error, now);
                    failures += 1;
                    if failures > MAX_FAILURES {
                        return self.cut_short(moved, error);
                    }
                }
            }
        }
        self.was_cut_short = false;
        Ok(moved)
    }

    /// Returns how many orders the next transaction may change.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Returns whether the rest of the last page was left to the next round.
    pub const fn was_cut_short(&self) -> bool {
        self.was_cut_short
    }

    /// The failed orders are in back-off, so the next round comes to the rest of the page.
    fn cut_short(&mut self, moved: usize, error: DbError) -> Result<usize, DbError> {
        let is_second = std::mem::replace(&mut self.was_cut_short, true);
        if is_second { Err(error) } else { Ok(moved) }
    }

    fn moved(&mut self, orders: &[OrderId], outcomes: &[Outcome]) -> usize {
        for (order, outcome) in orders.iter().zip(outcomes) {
            self.backed_off.remove(*order);
            if let Outcome::Unreadable(error) = outcome {
                self.log(*order, error);
            }
        }
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count()
    }

    fn failed(&mut self, order: OrderId, error: &DbError, now: Timestamp) {
        self.log(order, error);
        self.backed_off.add(order, now);
    }

    /// Logs an order once, since each round finds it again.
    fn log(&mut self, order: OrderId, error: &DbError) {
        if self.logged.insert(order) {
            tracing::error!(order.id = %order, error.cause = %error, "order is left as it is, it cannot be changed");
        }
    }
}

/// Orders in back-off, each with the end of it and the number of failures.
#[derive(Debug, Default)]
struct BackedOff(HashMap<OrderId, (Timestamp, u32)>);

impl BackedOff {
    fn contains(&self, order: OrderId, now: Timestamp) -> bool {
        self.0.get(&order).is_some_and(|(until, _)| now < *until)
    }

    fn add(&mut self, order: OrderId, now: Timestamp) {
        if self.0.len() >= MAX_BACKED_OFF {
            self.0.clear();
        }
        let times = self.0.get(&order).map_or(0, |(_, times)| *times);
        let backoff = FIRST_BACKOFF * 2_u32.pow(times.min(MAX_DOUBLINGS));
        self.0.insert(order, (now.plus(backoff), times.saturating_add(1)));
    }

    fn remove(&mut self, order: OrderId) {
        self.0.remove(&order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_order_rests_longer_each_time_until_it_is_changed() {
        let (order, start) = (OrderId::from_uuid(Uuid::from_u128(1)), Timestamp::from_micros(0));
        let mut backed_off = BackedOff::default();
        assert!(!backed_off.contains(order, start));
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            backed_off.add(order, start);
            let last = start.plus(Duration::from_secs(seconds) - Duration::from_micros(1));
            assert!(
                backed_off.contains(order, last)
                    && !backed_off.contains(order, start.plus(Duration::from_secs(seconds)))
            );
        }
        backed_off.remove(order);
        backed_off.add(order, start);
        assert!(!backed_off.contains(order, start.plus(FIRST_BACKOFF)));
    }
}
