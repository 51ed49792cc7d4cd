//! Looks up the charge or refund of a notice. A notice says that something has changed; the state is what the provider
//! answers to the look-up.

use super::{Context, Error, NoteRefunds, SettleAttempts, SettleRefunds};
use crate::{
    domain::{AttemptKey, Outcome, RefundKey, RefundOutcome, RefundState},
    provider::{HttpProvider, LookUp, ProviderError, is_plain},
    store::refunds,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// Most look-ups for notices at a time. Further ones wait.
const MAX_IN_FLIGHT: usize = 64;
/// Longest wait for a permit.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Looks up the charges and refunds of notices. Cheap to clone.
#[derive(Clone)]
pub struct LookUpNotices {
    context: Context,
    provider: HttpProvider,
    settle: SettleAttempts,
    settle_refunds: SettleRefunds,
    note_refunds: NoteRefunds,
    permits: Arc<Semaphore>,
}

impl LookUpNotices {
    pub fn new(
        context: Context,
        provider: HttpProvider,
        settle: SettleAttempts,
        settle_refunds: SettleRefunds,
        note_refunds: NoteRefunds,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self { context, provider, settle, settle_refunds, note_refunds, permits }
    }

    /// Looks a charge up by its key, and stores its outcome if it has ended. A charge that is pending, or that the
    /// provider does not have, is left to the reconciler.
    ///
    /// If the notice names another charge than the one under its key, that one is looked up too: there may be two
    /// captures under one key, and the look-up by key returns one of them.
    pub async fn charge(&self, key: AttemptKey, reported: &Outcome) -> Result<(), Error> {
        let found = match self.with_permit(self.provider.look_up(key)).await? {
            Some(LookUp::Found(outcome)) if outcome != Outcome::Unresolved => outcome,
            Some(LookUp::Found(_) | LookUp::NotFound) | None => return Ok(()),
        };
        self.settle.run(key, found.clone()).await?;
        match reported.charge_id() {
            Some(reported) if found.is_end() && found.charge_id() != Some(reported) => {
                self.other_charge(key, reported).await
            }
            _ => Ok(()),
        }
    }

    /// Looks up a second charge of this key, and stores its outcome if it is one.
    async fn other_charge(&self, key: AttemptKey, charge_id: &str) -> Result<(), Error> {
        if !is_plain(charge_id) {
            tracing::error!(attempt.id = %key, "the provider tells of another charge, whose id cannot be looked up");
            return Ok(());
        }
        match self.with_permit(self.provider.look_up_charge(charge_id)).await? {
            Some(Some(charge)) if charge.key == Some(key) && charge.outcome.charge_id() == Some(charge_id) => {
                self.settle.run(key, charge.outcome).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks up a refund of this service, and stores its outcome if it has ended. One that is done is looked up only if
    /// its notice says that it `has_failed` since. If it has, that is stored as an anomaly, also where the refund is
    /// done while this looks it up.
    pub async fn refund(&self, key: RefundKey, has_failed: bool) -> Result<(), Error> {
        let found =
            self.context.db.run("find_refund", move |mut conn| async move { refunds::find(&mut conn, key.0).await });
        let Some(refund) = found.await? else {
            tracing::error!(refund.id = %key, "the provider tells of a refund that was never requested");
            return Ok(());
        };
        let is_done = matches!(refund.state, RefundState::Refunded { .. });
        if is_done && !has_failed {
            return Ok(());
        }
        match self.with_permit(self.provider.look_up_refund(&refund)).await? {
            Some(Some(outcome)) if outcome != RefundOutcome::Unresolved => {
                self.settle_refunds.run_noticed(key, outcome, has_failed).await
            }
            Some(Some(_) | None) | None => Ok(()),
        }
    }

    /// Looks up a charge that was refunded by others, and stores that as an anomaly. Fails if its payment cannot be
    /// read, so that the provider retries its notice.
    pub async fn foreign_refund(&self, charge_id: &str) -> Result<(), Error> {
        let Some(Some(charge)) = self.with_permit(self.provider.look_up_charge(charge_id)).await? else {
            return Ok(());
        };
        let unreadable = self.note_refunds.note(&[charge]).await?;
        unreadable.into_values().next().map_or(Ok(()), |error| Err(Error::NotLookedUp(error.to_string())))
    }

    /// Makes a look-up with a permit. Returns `None` if the provider refuses it permanently. Fails if there is no
    /// answer, so that the provider retries its notice.
    async fn with_permit<T>(
        &self,
        look_up: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<Option<T>, Error> {
        let Ok(Ok(_permit)) = timeout(LONGEST_WAIT, self.permits.acquire()).await else {
            return Err(Error::NotLookedUp("there are too many notices at a time".to_owned()));
        };
        match look_up.await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.doubt().is_some() => {
                tracing::error!(error.cause = %error, "what a notice is about cannot be looked up");
                Ok(None)
            }
            Err(error) => Err(Error::NotLookedUp(error.to_string())),
        }
    }
}
