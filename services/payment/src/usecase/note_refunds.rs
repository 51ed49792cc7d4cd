//! Finds refunds that were made at the provider and not by this service, as by hand. Each becomes an anomaly: an
//! operator decides whether the goods come back, and the refund is recorded by that decision.
//!
//! One replica at a time reads the provider's list: it leases a turn. Writes of the cursor, and of the charges that are
//! looked up again, are fenced by the turn, so that an expired one cannot set them back.
//!
//! A charge of the list that cannot be looked up blocks no other: it is stored together with the cursor that passes it,
//! and looked up again with back-off, until the provider shows it. So is a charge of this service whose refund is
//! pending, for two weeks at least, unless all of it is refunded before, and one whose payment cannot be read.

use super::{Context, working_set::WorkingSet};
use crate::{
    domain::{Anomaly, AttemptKey},
    provider::{ChargeRecord, HttpProvider, ProviderError},
    store::{
        anomalies, cursors, turns,
        unread_refunds::{self, Unread},
    },
};
use futures_util::{StreamExt, stream};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{Money, PaymentId, Timestamp, backoff_within};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Most pages of a round.
const MAX_PAGES: usize = 20;
/// Most charges that a round looks up again.
const MAX_RETRIED: u32 = 50;
/// Upper bound of the back-off until a charge is looked up again. The lower bound is the interval.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
/// Most times that the charge of a pending refund is looked up again: over two weeks, by the longest back-off, of which
/// up to half is jitter.
const MAX_PENDING_TRIES: u32 = 40;
/// Most look-ups at a time.
const MAX_IN_FLIGHT: usize = 8;
/// Lease of a turn: longer than a round may take. If its replica dies, the others wait until it expires.
const TURN_LEASE: Duration = Duration::from_secs(90);

/// Why a round failed. The next one resumes at the cursor.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Charges that were looked up.
#[derive(Default)]
struct LookedUp {
    charges: Vec<ChargeRecord>,
    /// Ids of those that are charges of this service, with their payments.
    ours: BTreeMap<String, PaymentId>,
    /// Ids of those that were refunded as a whole.
    given_back: BTreeSet<String>,
    /// Ids of charges that the provider has not shown, or whose payments cannot be read.
    unread: Vec<String>,
}

/// What was stored of refunds by others.
struct Noted {
    /// The anomalies that are new.
    anomalies: Vec<Anomaly>,
    /// The payments that cannot be read, with the error. Nothing is stored of their refunds.
    unreadable: BTreeMap<PaymentId, DbError>,
}

impl LookedUp {
    /// Counts the charges of these payments, which cannot be read, as unread.
    fn leave_unread(&mut self, unreadable: &BTreeMap<PaymentId, DbError>) {
        let (left, ours) = std::mem::take(&mut self.ours)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, payment_id)| unreadable.contains_key(payment_id));
        self.ours = ours;
        self.unread.extend(left.into_keys());
    }

    /// Returns whether this charge, which is among them, has to be looked up once more.
    fn is_to_be_read_again(&self, due: &Unread) -> bool {
        let may_change = may_still_be_done(due) && !self.given_back.contains(&due.charge_id);
        may_change || self.unread.contains(&due.charge_id)
    }
}

/// Finds and notes refunds of others. Cheap to clone.
#[derive(Clone)]
pub struct NoteRefunds {
    context: Context,
    provider: HttpProvider,
    interval: Duration,
}

impl NoteRefunds {
    /// Finds refunds at this provider, once an interval in each replica.
    pub fn new(context: Context, provider: HttpProvider, interval: Duration) -> Self {
        Self { context, provider, interval }
    }

    /// Reads the new entries of the provider's list of refunds, and stores those of others as anomalies, unless another
    /// replica has the turn. Reads nothing while the breaker is open.
    pub async fn sweep(&self) -> Result<(), SweepError> {
        if self.is_blocked_by_breaker() {
            return Ok(());
        }
        let Some(turn) = self.begin_turn().await? else { return Ok(()) };
        let read = self.read(turn).await;
        // Half an interval, so that its own next round is not too early. After a failure, another replica may continue
        // at once: it may reach the provider.
        let pause = if read.is_ok() { self.interval / 2 } else { Duration::ZERO };
        self.end_turn(turn, pause).await?;
        read
    }

    fn is_blocked_by_breaker(&self) -> bool {
        self.provider.breaker().allowance(1) == 0
    }

    async fn begin_turn(&self) -> Result<Option<Timestamp>, DbError> {
        let now = Timestamp::now();
        let turn = now.plus(TURN_LEASE);
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

    async fn read(&self, turn: Timestamp) -> Result<(), SweepError> {
        self.read_pages(turn).await?;
        Ok(self.look_up_again(turn).await?)
    }

    async fn read_pages(&self, turn: Timestamp) -> Result<(), SweepError> {
        for _ in 0..MAX_PAGES {
            if self.is_blocked_by_breaker() || !self.read_page(turn).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a page. Returns whether this turn may read a next one.
    async fn read_page(&self, turn: Timestamp) -> Result<bool, SweepError> {
        let db = &self.context.db;
        let after = db.run("find_cursor", |mut conn| async move { cursors::read(&mut conn, cursors::REFUNDS).await });
        let after: Option<String> = after.await?;
        let page = match self.provider.refunds_after(after.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                // The provider does not know the cursor: it has lost its list and started another.
                if after.is_some() && error.doubt().is_some() {
                    self.move_cursor(turn, None, Vec::new()).await?;
                }
                return Err(error.into());
            }
        };
        let foreign: BTreeSet<String> = page.foreign.into_iter().collect();
        let mut looked_up = self.look_up_all(foreign).await;
        let unreadable = self.note(&looked_up.charges).await?;
        looked_up.leave_unread(&unreadable);
        let Some(last) = page.last else { return Ok(false) };
        let unread = self.to_look_up_again(looked_up, page.pending);
        Ok(self.move_cursor(turn, Some(last.into()), unread).await? && page.has_more)
    }

    /// Returns the unread charges of a page, and those of this service with a pending refund.
    fn to_look_up_again(&self, looked_up: LookedUp, pending: Vec<String>) -> Vec<Unread> {
        let LookedUp { ours, unread, .. } = looked_up;
        let due_at = Timestamp::now().plus(self.interval);
        let pending: BTreeSet<String> = pending.into_iter().collect();
        let again = |charge_id: String, is_unread| {
            let is_pending = pending.contains(&charge_id);
            Unread { charge_id, due_at, tries: 0, is_pending, is_unread }
        };
        let shown = pending.iter().filter(|charge_id| ours.contains_key(*charge_id)).cloned();
        let shown = shown.map(|charge_id| again(charge_id, false));
        unread.into_iter().map(|charge_id| again(charge_id, true)).chain(shown).collect()
    }

    /// Stores the cursor, and the charges up to it that are to be looked up again; `None` resets the cursor to the
    /// start of the list. Returns whether the caller still had the turn; without it nothing is stored.
    async fn move_cursor(&self, turn: Timestamp, last: Option<Arc<str>>, unread: Vec<Unread>) -> Result<bool, DbError> {
        let (now, unread): (Timestamp, Arc<[Unread]>) = (Timestamp::now(), unread.into());
        let moved = self.context.db.transact("move_cursor", move |conn| {
            let (last, unread) = (last.clone(), unread.clone());
            Box::pin(async move { move_cursor(conn, turn, last.as_deref(), &unread, now).await })
        });
        moved.await
    }

    /// Retries the look-ups of charges that were unread or whose refunds were pending, and stores the refunds of those
    /// that the provider shows now. When they are due next is stored only if the caller still has the turn.
    async fn look_up_again(&self, turn: Timestamp) -> Result<(), DbError> {
        if self.is_blocked_by_breaker() {
            return Ok(());
        }
        let now = Timestamp::now();
        let db = &self.context.db;
        let due =
            db.run("due_refunds", |mut conn| async move { unread_refunds::due(&mut conn, now, MAX_RETRIED).await });
        let due: Vec<Unread> = due.await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut looked_up = self.look_up_all(due.iter().map(|unread| unread.charge_id.clone()).collect()).await;
        let unreadable = self.note(&looked_up.charges).await?;
        looked_up.leave_unread(&unreadable);
        let (mut unread, read): (Vec<Unread>, Vec<Unread>) =
            due.into_iter().partition(|due| looked_up.is_to_be_read_again(due));
        for unread in &mut unread {
            unread.is_pending = may_still_be_done(unread);
            unread.is_unread = looked_up.unread.contains(&unread.charge_id);
            unread.tries = unread.tries.saturating_add(1);
            unread.due_at = Timestamp::now().plus(backoff_within(self.interval, LONGEST_PAUSE, unread.tries));
        }
        let (unread, read): (Arc<[Unread]>, Arc<[Unread]>) = (unread.into(), read.into());
        let written = db.transact("postpone_refunds", move |conn| {
            let (unread, read) = (unread.clone(), read.clone());
            Box::pin(async move { put_off(conn, turn, &unread, &read).await })
        });
        written.await
    }

    /// Returns the number of charges that the provider has not shown, or whose payments cannot be read.
    pub async fn count_unread(&self) -> Result<u64, DbError> {
        self.context
            .db
            .run("count_unread", |mut conn| async move { unread_refunds::count_unread(&mut conn).await })
            .await
    }

    async fn look_up_all(&self, charges: BTreeSet<String>) -> LookedUp {
        let answers = stream::iter(charges)
            .map(|charge_id| async move {
                let found = self.look_up(&charge_id).await;
                (charge_id, found)
            })
            .buffer_unordered(MAX_IN_FLIGHT);
        let answers: Vec<(String, Result<Option<ChargeRecord>, ProviderError>)> = answers.collect().await;
        let (mut looked_up, mut failure) = (LookedUp::default(), None);
        for (charge_id, found) in answers {
            match found {
                Ok(Some(charge)) => {
                    if charge.is_given_back {
                        looked_up.given_back.insert(charge_id.clone());
                    }
                    if let Some(key) = charge.key {
                        looked_up.ours.insert(charge_id, key.payment_id);
                    }
                    looked_up.charges.push(charge);
                }
                Ok(None) => {}
                Err(error) => {
                    looked_up.unread.push(charge_id);
                    failure = Some(error);
                }
            }
        }
        // One log line for all, since each round looks them up again.
        if let Some(error) = failure {
            tracing::warn!(
                charge.count = looked_up.unread.len(), error.cause = %error,
                "refunds were made by hand, and their charges cannot be looked up now"
            );
        }
        looked_up
    }

    /// Looks a charge up. Logs a permanent failure as an error and returns `None`, so that it blocks no other.
    async fn look_up(&self, charge_id: &str) -> Result<Option<ChargeRecord>, ProviderError> {
        match self.provider.look_up_charge(charge_id).await {
            Err(error) if error.is_permanent() => {
                tracing::error!(error.cause = %error, "a refund was made by hand, and its charge cannot be looked up");
                Ok(None)
            }
            found => found,
        }
    }

    /// Stores an anomaly for each of these charges that was refunded by others. Idempotent. Returns the payments that
    /// cannot be read, with the error: nothing is stored of their refunds, and their charges are to be looked up again.
    pub async fn note(&self, charges: &[ChargeRecord]) -> Result<BTreeMap<PaymentId, DbError>, DbError> {
        let refunded = charges.iter().filter_map(|charge| charge.key.zip(charge.refunded));
        let refunded: Arc<[(AttemptKey, Money)]> = refunded.collect();
        if refunded.is_empty() {
            return Ok(BTreeMap::new());
        }
        let now = Timestamp::now();
        let noted = self.context.db.transact("note_refunds", move |conn| {
            let refunded = refunded.clone();
            Box::pin(async move { write(conn, &refunded, now).await })
        });
        let Noted { anomalies, unreadable } = noted.await?;
        self.context.report(anomalies.iter());
        for (id, error) in &unreadable {
            tracing::error!(
                payment.id = %id, error.cause = %error,
                "a refund was made by hand, and its payment cannot be read"
            );
        }
        Ok(unreadable)
    }
}

/// Returns whether the refund of this charge was pending, and may be done later than now.
const fn may_still_be_done(unread: &Unread) -> bool {
    unread.is_pending && unread.tries + 1 < MAX_PENDING_TRIES
}

async fn move_cursor(
    conn: &mut MySqlConnection,
    turn: Timestamp,
    last: Option<&str>,
    unread: &[Unread],
    now: Timestamp,
) -> Result<bool, DbError> {
    if !turns::is_held(conn, cursors::REFUNDS, turn).await? {
        return Ok(false);
    }
    match last {
        Some(last) => cursors::save(conn, cursors::REFUNDS, last, now).await?,
        None => cursors::forget(conn, cursors::REFUNDS).await?,
    }
    unread_refunds::insert(conn, unread).await?;
    Ok(true)
}

/// Puts off the look-ups of those that are unread, and deletes those that are read, if the caller still has the turn.
async fn put_off(
    conn: &mut MySqlConnection,
    turn: Timestamp,
    unread: &[Unread],
    read: &[Unread],
) -> Result<(), DbError> {
    if !turns::is_held(conn, cursors::REFUNDS, turn).await? {
        return Ok(());
    }
    unread_refunds::postpone(conn, unread).await?;
    unread_refunds::delete(conn, read).await
}

/// Stores what these charges were refunded by others.
async fn write(conn: &mut MySqlConnection, refunded: &[(AttemptKey, Money)], now: Timestamp) -> Result<Noted, DbError> {
    let mut payments = WorkingSet::lock(conn, refunded.iter().map(|(key, _)| key.payment_id)).await?;
    let (mut found, mut unreadable) = (Vec::new(), BTreeMap::new());
    for &(key, amount) in refunded {
        let id = key.payment_id;
        match payments.readable(id) {
            Ok(()) => {
                let payment = payments.get_mut(id);
                found.extend(payment.and_then(|payment| payment.refunded_elsewhere(key.attempt, amount)));
            }
            Err(error) => drop(unreadable.insert(id, error)),
        }
    }
    let anomalies = anomalies::note(conn, &found, now).await?;
    Ok(Noted { anomalies, unreadable })
}
