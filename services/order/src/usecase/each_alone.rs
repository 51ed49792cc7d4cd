//! Changes of many orders by a sweep, of which none may keep the others waiting.

use super::{Change, Outcome, Transitions};
use crate::domain::Input;
use stampede_db::DbError;
use stampede_vocab::{OrderId, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Most orders of a page that a sweep tries alone. If the database refuses more of them, the rest of the page is left
/// to the next round.
const MOST_ALONE: usize = 16;
/// How long an order rests once it was refused; then twice as long each time, [`MOST_DOUBLINGS`] times at most.
const REST: Duration = Duration::from_secs(1);
const MOST_DOUBLINGS: u32 = 6;
/// Most orders that rest.
const MOST_RESTING: usize = 10_000;

/// Applies an input to many orders. Leaves out those that somebody else has locked, those that cannot be read, and
/// those whose change the database refuses; the last two are logged once each.
pub struct EachAlone {
    transitions: Transitions,
    logged: HashSet<OrderId>,
    resting: Resting,
    /// Whether the rest of the page before was left.
    has_left: bool,
}

impl EachAlone {
    /// Changes orders through these transitions.
    pub fn new(transitions: Transitions) -> Self {
        Self { transitions, logged: HashSet::new(), resting: Resting::default(), has_left: false }
    }

    /// Applies the input to a page of orders in transactions of this name, and returns how many orders have changed. A
    /// batch that the database refuses is split until the order that it refuses is alone. Fails if the database is at
    /// fault, and not what is written: as it seems if it refuses too many orders of two pages in a row.
    pub async fn run(&mut self, name: &'static str, input: &Input, orders: Vec<OrderId>) -> Result<usize, DbError> {
        let now = Timestamp::now();
        let awake: Vec<OrderId> = orders.into_iter().filter(|order| !self.resting.has(*order, now)).collect();
        let (mut moved, mut refused, mut batches) = (0, 0, vec![awake]);
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            let change = |order: &OrderId| Change { order: *order, input: input.clone(), traceparent: None };
            let applied = self.transitions.run_unlocked(name, batch.iter().map(change).collect()).await;
            match applied {
                Ok(outcomes) => moved += self.moved(&batch, &outcomes),
                Err(error) if !error.is_reproducible() => return Err(error),
                Err(error) if batch.len() == 1 => {
                    self.refused(batch[0], &error, now);
                    refused += 1;
                    if refused > MOST_ALONE {
                        return self.leave_rest(moved, error);
                    }
                }
                Err(_) => {
                    let half = batch.split_off(batch.len() / 2);
                    batches.extend([half, batch]);
                }
            }
        }
        self.has_left = false;
        Ok(moved)
    }

    /// Those that were refused rest, so that the next round comes to the others of the page.
    fn leave_rest(&mut self, moved: usize, error: DbError) -> Result<usize, DbError> {
        let is_second = std::mem::replace(&mut self.has_left, true);
        if is_second { Err(error) } else { Ok(moved) }
    }

    fn moved(&mut self, orders: &[OrderId], outcomes: &[Outcome]) -> usize {
        for (order, outcome) in orders.iter().zip(outcomes) {
            self.resting.wake(*order);
            if let Outcome::Unreadable(error) = outcome {
                self.log(*order, error);
            }
        }
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count()
    }

    fn refused(&mut self, order: OrderId, error: &DbError, now: Timestamp) {
        self.log(order, error);
        self.resting.put(order, now);
    }

    /// Logs once, since the sweep comes by again and again.
    fn log(&mut self, order: OrderId, error: &DbError) {
        if self.logged.insert(order) {
            tracing::error!(order.id = %order, error.cause = %error, "order is left as it is, it cannot be changed");
        }
    }
}

/// Orders that were refused, until when each rests, and how often it has.
#[derive(Debug, Default)]
struct Resting(HashMap<OrderId, (Timestamp, u32)>);

impl Resting {
    fn has(&self, order: OrderId, now: Timestamp) -> bool {
        self.0.get(&order).is_some_and(|(until, _)| now < *until)
    }

    fn put(&mut self, order: OrderId, now: Timestamp) {
        if self.0.len() >= MOST_RESTING {
            self.0.clear();
        }
        let times = self.0.get(&order).map_or(0, |(_, times)| *times);
        let rest = REST * 2_u32.pow(times.min(MOST_DOUBLINGS));
        self.0.insert(order, (now.plus(rest), times.saturating_add(1)));
    }

    fn wake(&mut self, order: OrderId) {
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
        let mut resting = Resting::default();
        assert!(!resting.has(order, start));
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            resting.put(order, start);
            let last = start.plus(Duration::from_secs(seconds) - Duration::from_micros(1));
            assert!(resting.has(order, last) && !resting.has(order, start.plus(Duration::from_secs(seconds))));
        }
        resting.wake(order);
        resting.put(order, start);
        assert!(!resting.has(order, start.plus(REST)));
    }
}
