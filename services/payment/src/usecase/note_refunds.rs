//! Finds money that was refunded at the provider and not by this service, as by hand. It is noted as an anomaly:
//! whether the goods come back is for an operator to say. If they do, the refund is booked as they decide.
//!
//! Of several replicas one reads the provider's list at a time: it has a turn. A turn that is over writes no cursor any
//! more, so the cursor never goes back behind what a later turn has read.

use super::Context;
use crate::{
    domain::{Anomaly, AttemptKey},
    provider::{ChargeRecord, HttpProvider, ProviderError},
    store::{WorkingSet, anomalies, cursors, turns},
};
use futures_util::{StreamExt, stream};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{Money, Timestamp};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Most pages of a round.
const MAX_PAGES: usize = 20;
/// Most look-ups at a time.
const MAX_IN_FLIGHT: usize = 8;
/// How long the list is one replica's to read: longer than a round may take. If it dies with its turn, the others wait
/// for the rest of this.
const TURN: Duration = Duration::from_secs(90);

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
    interval: Duration,
}

impl NoteRefunds {
    /// Finds refunds at this provider. Each replica looks for them once an interval.
    pub fn new(context: Context, provider: HttpProvider, interval: Duration) -> Self {
        Self { context, provider, interval }
    }

    /// Reads what the provider's list of refunds has since the last round, and notes what this service has not sent,
    /// unless it is another replica's turn. Nothing is read while the provider fails.
    pub async fn sweep(&self) -> Result<(), SweepError> {
        if self.is_held_back() {
            return Ok(());
        }
        let Some(turn) = self.begin_turn().await? else { return Ok(()) };
        let read = self.read_pages(turn).await;
        // Half, so that its own next round does not come too early. After a failure another one may go on at once: it
        // may reach the provider.
        let pause = if read.is_ok() { self.interval / 2 } else { Duration::ZERO };
        self.end_turn(turn, pause).await?;
        read
    }

    fn is_held_back(&self) -> bool {
        self.provider.breaker().allowance(1) == 0
    }

    async fn begin_turn(&self) -> Result<Option<Timestamp>, DbError> {
        let now = Timestamp::now();
        let turn = now.plus(TURN);
        let begin = self
            .context
            .db
            .run("begin_turn", |mut conn| async move { turns::begin(&mut conn, cursors::REFUNDS, now, turn).await });
        Ok(begin.await?.then_some(turn))
    }

    async fn end_turn(&self, turn: Timestamp, pause: Duration) -> Result<(), DbError> {
        let next = Timestamp::now().plus(pause);
        let end = self
            .context
            .db
            .run("end_turn", |mut conn| async move { turns::end(&mut conn, cursors::REFUNDS, turn, next).await });
        end.await
    }

    async fn read_pages(&self, turn: Timestamp) -> Result<(), SweepError> {
        for _ in 0..MAX_PAGES {
            if self.is_held_back() || !self.read_page(turn).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a page. Returns whether there is a next one for this turn.
    async fn read_page(&self, turn: Timestamp) -> Result<bool, SweepError> {
        let db = &self.context.db;
        let after = db.run("find_cursor", |mut conn| async move { cursors::read(&mut conn, cursors::REFUNDS).await });
        let after: Option<String> = after.await?;
        let page = match self.provider.refunds_after(after.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                // The provider does not know where the last page ended: it has lost its list, and begins it anew.
                if after.is_some() && error.doubt().is_some() {
                    self.move_cursor(turn, None).await?;
                }
                return Err(error.into());
            }
        };
        self.note_all(page.foreign.into_iter().collect()).await?;
        let Some(last) = page.last else { return Ok(false) };
        Ok(self.move_cursor(turn, Some(last.into())).await? && page.has_more)
    }

    /// Stores how far the list was read; with `None` it is read from its start again. Returns whether it was still the
    /// caller's turn; nothing is stored if it was not.
    async fn move_cursor(&self, turn: Timestamp, last: Option<Arc<str>>) -> Result<bool, DbError> {
        let now = Timestamp::now();
        let moved = self.context.db.transact("move_cursor", move |conn| {
            let last = last.clone();
            Box::pin(async move { move_cursor(conn, turn, last.as_deref(), now).await })
        });
        moved.await
    }

    /// Looks up these charges and notes what was refunded of them. Fails if one cannot be looked up now, once all
    /// others are noted.
    async fn note_all(&self, charges: BTreeSet<String>) -> Result<(), SweepError> {
        let found = stream::iter(charges)
            .map(|charge_id| async move { self.look_up(&charge_id).await })
            .buffer_unordered(MAX_IN_FLIGHT);
        let found: Vec<Result<Option<ChargeRecord>, ProviderError>> = found.collect().await;
        let (mut charges, mut failure) = (Vec::new(), None);
        for found in found {
            match found {
                Ok(charge) => charges.extend(charge),
                Err(error) => failure = Some(error),
            }
        }
        self.note(&charges).await?;
        failure.map_or(Ok(()), |error| Err(error.into()))
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

async fn move_cursor(
    conn: &mut MySqlConnection,
    turn: Timestamp,
    last: Option<&str>,
    now: Timestamp,
) -> Result<bool, DbError> {
    if !turns::is_held(conn, cursors::REFUNDS, turn).await? {
        return Ok(false);
    }
    match last {
        Some(last) => cursors::save(conn, cursors::REFUNDS, last, now).await?,
        None => cursors::forget(conn, cursors::REFUNDS).await?,
    }
    Ok(true)
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
