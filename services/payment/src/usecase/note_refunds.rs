//! Finds money that was refunded at the provider and not by this service, as by hand. It is noted as an anomaly:
//! whether the goods come back is for an operator to say, by refunding the order or not.

use super::Context;
use crate::{
    domain::{Anomaly, AttemptKey},
    provider::{ChargeRecord, HttpProvider, ProviderError},
    store::{WorkingSet, anomalies, cursors},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{Money, Timestamp};
use std::{collections::BTreeSet, sync::Arc};

/// Most pages of a round.
const MAX_PAGES: usize = 20;
/// Most look-ups at a time.
const MAX_IN_FLIGHT: usize = 8;

/// Why a round has failed. The next one begins where it ended.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Finds and notes refunds of others. Cheap to clone.
#[derive(Clone)]
pub struct NoteRefunds {
    context: Context,
    provider: HttpProvider,
}

impl NoteRefunds {
    /// Finds refunds at this provider.
    pub fn new(context: Context, provider: HttpProvider) -> Self {
        Self { context, provider }
    }

    /// Reads what the provider's list of refunds has since the last round, and notes what this service has not sent.
    /// Nothing is read while the provider fails.
    pub async fn sweep(&self) -> Result<(), SweepError> {
        for _ in 0..MAX_PAGES {
            if self.provider.breaker().allowance(1) == 0 || !self.read_page().await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a page. Returns whether there is a next one.
    async fn read_page(&self) -> Result<bool, SweepError> {
        let db = &self.context.db;
        let after = db.run("find_cursor", |mut conn| async move { cursors::read(&mut conn, cursors::REFUNDS).await });
        let after: Option<String> = after.await?;
        let page = match self.provider.refunds_after(after.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                // The provider does not know where the last page ended: it has lost its list, and begins it anew.
                if after.is_some() && error.doubt().is_some() {
                    db.transact("forget_cursor", |conn| Box::pin(cursors::forget(conn, cursors::REFUNDS))).await?;
                }
                return Err(error.into());
            }
        };
        let charges: BTreeSet<_> = page.foreign.into_iter().collect();
        let charges = stream::iter(charges)
            .map(|charge_id| async move { self.look_up(&charge_id).await })
            .buffer_unordered(MAX_IN_FLIGHT);
        let charges: Vec<Option<ChargeRecord>> = charges.try_collect().await?;
        self.note(&charges.into_iter().flatten().collect::<Vec<_>>()).await?;
        let Some(last) = page.last else { return Ok(false) };
        let (last, now): (Arc<str>, _) = (last.into(), Timestamp::now());
        let save = db.transact("save_cursor", move |conn| {
            let last = last.clone();
            Box::pin(async move { cursors::save(conn, cursors::REFUNDS, &last, now).await })
        });
        save.await?;
        Ok(page.has_more)
    }

    /// Looks a charge up. One that will never be answered for keeps no other from being noted.
    async fn look_up(&self, charge_id: &str) -> Result<Option<ChargeRecord>, ProviderError> {
        match self.provider.look_up_charge(charge_id).await {
            Err(error) if error.is_lasting() => {
                tracing::error!(error.cause = %error, "a refund was made by hand, and its charge cannot be looked up");
                Ok(None)
            }
            found => found,
        }
    }

    /// Notes what was refunded of these charges and nobody here has asked for. It is idempotent.
    pub async fn note(&self, charges: &[ChargeRecord]) -> Result<(), DbError> {
        let refunded = charges.iter().filter_map(|charge| charge.key.zip(charge.refunded));
        let refunded: Arc<[(AttemptKey, Money)]> = refunded.collect();
        if refunded.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now();
        let noted = self.context.db.transact("note_refunds", move |conn| {
            let refunded = refunded.clone();
            Box::pin(async move { write(conn, &refunded, now).await })
        });
        self.context.report(noted.await?.iter());
        Ok(())
    }
}

async fn write(
    conn: &mut MySqlConnection,
    refunded: &[(AttemptKey, Money)],
    now: Timestamp,
) -> Result<Vec<Anomaly>, DbError> {
    let mut payments = WorkingSet::lock(conn, refunded.iter().map(|(key, _)| key.payment_id)).await?;
    let noted: Vec<_> = refunded
        .iter()
        .filter_map(|(key, refunded)| payments.get_mut(key.payment_id)?.refunded_elsewhere(key.attempt, *refunded))
        .collect();
    anomalies::note(conn, &noted, now).await?;
    Ok(noted)
}
