//! Finds out what became of charges that were never answered, or whose process died. The provider is asked by the key
//! of the charge; only if it never took one is the charge sent again, under the same key. So whatever was lost, and
//! however often, the buyer is charged once.

use super::{ChargeAttempts, Context, SettleAttempts, WORRYING_TRIES};
use crate::{
    domain::{ChargeOrder, Outcome},
    provider::{HttpProvider, LookUp},
    store::attempts,
};
use stampede_db::DbError;

/// Reconciles attempts with the provider. Cheap to clone.
#[derive(Clone)]
pub struct ReconcileAttempts {
    context: Context,
    provider: HttpProvider,
    charge: ChargeAttempts,
    settle: SettleAttempts,
}

impl ReconcileAttempts {
    /// Asks this provider, and charges by `charge` what it never took.
    pub fn new(context: Context, provider: HttpProvider, charge: ChargeAttempts, settle: SettleAttempts) -> Self {
        Self { context, provider, charge, settle }
    }

    /// How many charges there are of unknown outcome.
    pub async fn count_unknown(&self) -> Result<u64, DbError> {
        self.context.db.run("count_unknown", |mut conn| async move { attempts::count_unknown(&mut conn).await }).await
    }

    /// Claims attempts whose outcome is unknown and due for a look, at most `limit`, for this process alone until the
    /// lease ends.
    pub async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        let (now, until) = self.context.lease();
        self.context
            .db
            .transact("claim_unknown", move |conn| Box::pin(attempts::claim_unknown(conn, limit, now, until)))
            .await
    }

    /// Finds out what became of a claimed attempt and writes it down. If nobody can say yet the next look is planned.
    pub async fn run(&self, order: ChargeOrder) {
        let outcome = self.find_out(&order).await;
        if outcome == Outcome::Unresolved && order.checks + 1 >= WORRYING_TRIES {
            tracing::error!(payment.attempt = %order.key, payment.checks = order.checks + 1, "a charge still has no known outcome");
        }
        if let Err(error) = self.settle.run(order.key, outcome).await {
            tracing::warn!(payment.attempt = %order.key, error.cause = %error, "the outcome of a look-up was not written");
        }
    }

    async fn find_out(&self, order: &ChargeOrder) -> Outcome {
        match self.provider.look_up(order.key).await {
            Ok(LookUp::Found(outcome)) => outcome,
            Ok(LookUp::NotFound) => self.charge.ask_to_charge(order).await,
            Err(error) => {
                tracing::warn!(payment.attempt = %order.key, error.cause = %error, "a charge could not be looked up");
                Outcome::Unresolved
            }
        }
    }
}
