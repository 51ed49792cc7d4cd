//! Changes of many orders by a sweep, of which none may keep the others waiting.

use super::{Change, Outcome, Transitions};
use crate::domain::Input;
use stampede_db::DbError;
use stampede_vocab::OrderId;
use std::collections::HashSet;

/// Most orders that a sweep tries alone. If the database refuses more of them, the cause is no single order.
const MOST_ALONE: usize = 16;

/// Applies an input to many orders. Leaves out those that somebody else has locked, those that cannot be read, and
/// those whose change the database refuses; the last two are logged once each.
pub struct EachAlone {
    transitions: Transitions,
    logged: HashSet<OrderId>,
}

impl EachAlone {
    /// Changes orders through these transitions.
    pub fn new(transitions: Transitions) -> Self {
        Self { transitions, logged: HashSet::new() }
    }

    /// Applies the input in transactions of this name, and returns how many orders have changed. A batch that the
    /// database refuses is split until the order that it refuses is alone. Fails if the database
    /// is at fault, and not what is written.
    pub async fn run(&mut self, name: &'static str, input: &Input, orders: Vec<OrderId>) -> Result<usize, DbError> {
        let (mut moved, mut refused, mut batches) = (0, 0, vec![orders]);
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
                    refused += 1;
                    if refused > MOST_ALONE {
                        return Err(error);
                    }
                    self.log(batch[0], &error);
                }
                Err(_) => {
                    let half = batch.split_off(batch.len() / 2);
                    batches.extend([half, batch]);
                }
            }
        }
        Ok(moved)
    }

    fn moved(&mut self, orders: &[OrderId], outcomes: &[Outcome]) -> usize {
        for (order, outcome) in orders.iter().zip(outcomes) {
            if let Outcome::Unreadable(error) = outcome {
                self.log(*order, error);
            }
        }
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count()
    }

    /// Logs once, since the sweep comes by again and again.
    fn log(&mut self, order: OrderId, error: &DbError) {
        if self.logged.insert(order) {
            tracing::error!(order.id = %order, error.cause = %error, "order is left as it is, it cannot be changed");
        }
    }
}
