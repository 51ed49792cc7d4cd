//! Looks up what a notice of the provider is about. A notice says that something has changed; how it stands is what the
//! provider answers when it is asked.

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
/// Longest wait for one of those to end.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Looks up what notices are about. Cheap to clone.
#[derive(Clone)]
pub struct LookUpNotices {
    context: Context,
    provider: HttpProvider,
    settle: SettleAttempts,
    settle_refunds: SettleRefunds,
    note_refunds: NoteRefunds,
    slots: Arc<Semaphore>,
}

impl LookUpNotices {
    /// Looks up at this provider.
    pub fn new(
        context: Context,
        provider: HttpProvider,
        settle: SettleAttempts,
        settle_refunds: SettleRefunds,
        note_refunds: NoteRefunds,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self { context, provider, settle, settle_refunds, note_refunds, slots }
    }

    /// Stores how a charge stands, if it has ended. A charge that the provider does not have, or that is pending, stays
    /// as it is: the reconciler goes on to look it up.
    ///
    /// If the notice is about another charge than the one under its key, that is looked up as well: money may have been
    /// taken twice under one key, and the provider answers for the key with one of the two.
    pub async fn charge(&self, key: AttemptKey, told: &Outcome) -> Result<(), Error> {
        let found = match self.in_turn(self.provider.look_up(key)).await? {
            Some(LookUp::Found(outcome)) if outcome != Outcome::Unresolved => outcome,
            Some(LookUp::Found(_) | LookUp::NotFound) | None => return Ok(()),
        };
        self.settle.run(key, found.clone()).await?;
        match told.charge_id() {
            Some(told) if found.is_end() && found.charge_id() != Some(told) => self.other_charge(key, told).await,
            _ => Ok(()),
        }
    }

    /// Stores that a key has this charge too, if that is so.
    async fn other_charge(&self, key: AttemptKey, charge_id: &str) -> Result<(), Error> {
        if !is_plain(charge_id) {
            tracing::error!(attempt.id = %key, "the provider tells of another charge, whose id cannot be looked up");
            return Ok(());
        }
        match self.in_turn(self.provider.look_up_charge(charge_id)).await? {
            Some(Some(charge)) if charge.key == Some(key) && charge.outcome.charge_id() == Some(charge_id) => {
                self.settle.run(key, charge.outcome).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Stores how a refund of this service stands, if it has ended.
    pub async fn refund(&self, key: RefundKey) -> Result<(), Error> {
        let found =
            self.context.db.run("find_refund", move |mut conn| async move { refunds::find(&mut conn, key.0).await });
        let Some(refund) = found.await? else {
            tracing::error!(refund.id = %key, "the provider tells of a refund that was never requested");
            return Ok(());
        };
        if matches!(refund.state, RefundState::Refunded { .. }) {
            return Ok(());
        }
        match self.in_turn(self.provider.look_up_refund(&refund)).await? {
            Some(Some(outcome)) if outcome != RefundOutcome::Unresolved => self.settle_refunds.run(key, outcome).await,
            Some(Some(_) | None) | None => Ok(()),
        }
    }

    /// Stores that something was refunded of a charge, if nobody here has asked for it.
    pub async fn foreign_refund(&self, charge_id: &str) -> Result<(), Error> {
        match self.in_turn(self.provider.look_up_charge(charge_id)).await? {
            Some(Some(charge)) => self.note_refunds.note(&[charge]).await.map_err(Error::from),
            Some(None) | None => Ok(()),
        }
    }

    /// Makes a look-up when it is its turn. Returns `None` if the provider refuses it for good. Fails if there is no
    /// answer, so that the provider sends its notice again.
    async fn in_turn<T>(&self, look_up: impl Future<Output = Result<T, ProviderError>>) -> Result<Option<T>, Error> {
        let Ok(Ok(_slot)) = timeout(LONGEST_WAIT, self.slots.acquire()).await else {
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
