//! Finds out what became of charges that were never answered, or whose process died. The provider is asked by the key
//! of the charge; only if it never took one is the charge sent again, under the same key. So whatever was lost, and
//! however often, the buyer is charged once.

use crate::{
    domain::{ChargeOrder, Outcome},
    provider::LookUp,
    store::attempts,
    usecase::{Payments, WORRYING_TRIES},
};
use stampede_db::DbError;

impl Payments {
    /// How many charges there are of unknown outcome.
    pub async fn count_unknown(&self) -> Result<u64, DbError> {
        attempts::count_unknown(&mut *self.desk.db.acquire().await?).await
    }

    /// Claims attempts whose outcome is unknown and due for a look, at most `limit`, for this process alone until the
    /// lease ends.
    pub async fn claim_unknown(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        let now = self.desk.clock.now();
        let lease_until = now.plus(self.lease);
        let claim = self
            .desk
            .db
            .transact("claim_unknown", move |tx| Box::pin(attempts::claim_unknown(tx, limit, now, lease_until)));
        claim.await
    }

    /// Finds out what became of a claimed attempt and writes it down. If nobody can say yet the next look is planned.
    pub async fn reconcile(&self, order: ChargeOrder) {
        let outcome = self.find_out(&order).await;
        if outcome == Outcome::Unresolved && order.checks + 1 >= WORRYING_TRIES {
            tracing::error!(payment.attempt = %order.key, payment.checks = order.checks + 1, "a charge still has no known outcome");
        }
        if let Err(failure) = self.settle(order.key, outcome).await {
            tracing::warn!(payment.attempt = %order.key, "the outcome of a look-up was not written: {failure}");
        }
    }

    async fn find_out(&self, order: &ChargeOrder) -> Outcome {
        match self.provider.look_up(order.key).await {
            Ok(LookUp::Found(outcome)) => outcome,
            Ok(LookUp::NotFound) => self.ask_to_charge(order).await,
            Err(error) => {
                tracing::warn!(payment.attempt = %order.key, "a charge could not be looked up: {error}");
                Outcome::Unresolved
            }
        }
    }
}
