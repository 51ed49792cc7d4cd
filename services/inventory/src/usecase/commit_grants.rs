//! Commits grants of the script in the ledger, before the callers are answered. Grants of an event that queue while its
//! transactions are under way go into the next one together.

use super::{
    Error, MANY_EVENT_QUEUES, Reconcile, SyncRedis,
    ledger::{Answered, LedgerPlaces, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::{
    domain::{COMMIT_GRACE, Changes, Entry, Grant, Label, LedgerBatch, OrderedLine, ReservationOutcome, Titles},
    store,
};
use sqlx::MySqlConnection;
use stampede_batch::{BatchConfig, Batcher, KeyedBatchers};
use stampede_db::{Answers as Rows, Bisection, Database, DbError, Place, Statements, WorkError};
use stampede_vocab::{EventId, ItemId, Money, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// Two in flight: the second gets its connection and queues for the lock while the first one commits. A grant behind
/// four full batches would wait for so long that it is better refused. A grant whose caller is gone is not committed:
/// the sweep drops its hold, which is sooner than the units of an unwritten order go back.
const COMMIT: BatchConfig =
    BatchConfig { name: "commit_grants", max_batch: 512, max_in_flight: 2, max_queued: 2_048, must_run: false };
/// How long a grant waits for its commit before `Reserve` answers that it failed. The grace after the close is longer,
/// for what comes before.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(2_500);
const _: () = assert!(
    COMMIT_GRACE.as_millis() >= COMMIT_TIMEOUT.as_millis() + 1_000,
    "the grace after the close is a second longer than `Reserve` waits for a commit"
);
/// Attempts for a batch with an order that is being reserved in another event.
const MAX_ATTEMPTS: u32 = 4;

/// The answer of the ledger.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub outcome: ReservationOutcome,
    /// Names this request in a release; `None` if the order is known to be written.
    pub request_time: Option<Timestamp>,
    /// Price and titles of each line, as staged.
    pub labels: Vec<Label>,
}

type Answers = Vec<Result<Committed, DbError>>;

/// What a transaction has committed, and what is to be done in Redis after it.
struct Written {
    committed: Vec<Committed>,
    syncs: Vec<EventSync>,
    /// Events of which Redis may have been rolled back, with the last place that the ledger has.
    rolled_back: BTreeMap<EventId, i64>,
}

/// Where the answers of its reads are.
#[derive(Clone, Copy)]
struct ReadPlaces {
    ledger: LedgerPlaces,
    last_grants: Option<Place>,
}

/// Why a batch was rolled back.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("an order of the batch was reserved in another event at the same time")]
    ReservedElsewhere,
}

impl WorkError for CommitError {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::ReservedElsewhere => None,
        }
    }
}

/// Commits grants. Clones share the queues.
#[derive(Clone)]
pub(super) struct CommitGrants {
    queues: KeyedBatchers<EventId, Grant, Result<Committed, DbError>>,
}

impl CommitGrants {
    /// Returns the use case on this schema. It copies the changes to Redis after the commit, and distrusts an event if
    /// Redis was rolled back to an earlier copy of it. Needs a tokio runtime.
    pub(super) fn new(db: Database, sync: SyncRedis, reconcile: Reconcile) -> Self {
        let queue = move || {
            let (db, sync, reconcile) = (db.clone(), sync.clone(), reconcile.clone());
            Batcher::new(COMMIT, move |grants| commit_all(db.clone(), sync.clone(), reconcile.clone(), grants))
        };
        Self { queues: KeyedBatchers::new(MANY_EVENT_QUEUES, queue) }
    }

    /// Commits one grant, or finds its order in the ledger. The time-out bounds how long an event with locked rows
    /// delays the others of the same call. After a failure the units may be committed all the same: a retry gets the
    /// same answer, and without one a sweep gives them back.
    pub(super) async fn commit(&self, grant: Grant) -> Result<Committed, Error> {
        let queue = self.queues.of(grant.event_id);
        let timed_out = |_| DbError::TimedOut { name: COMMIT.name, after: COMMIT_TIMEOUT };
        Ok(timeout(COMMIT_TIMEOUT, queue.call(grant)).await.map_err(timed_out)???)
    }
}

/// Commits all in one transaction. If that fails because of the data, and not of the database, commits each half, so
/// that an unreadable row fails only its own request.
async fn commit_all(db: Database, sync: SyncRedis, reconcile: Reconcile, grants: Vec<Grant>) -> Answers {
    let (mut bisection, grants) = (Bisection::of(grants.len()), Arc::new(grants));
    while let Some(part) = bisection.next_part() {
        match commit_together(&db, &grants, part.clone()).await {
            Ok(written) => {
                // In the background: until Redis has the copy, the holds stand for the units.
                sync.start(written.syncs);
                for (event, last_place) in written.rolled_back {
                    reconcile.start_distrust(event, last_place);
                }
                bisection.part_written(written.committed.into_iter().map(Ok));
            }
            Err(error) => {
                let count = part.len();
                if bisection.part_failed(part, &error) {
                    tracing::warn!(
                        grant.count = count, error.cause = %error,
                        "a batch of grants could not be committed, trying its halves"
                    );
                }
            }
        }
    }
    bisection.results()
}

/// Commits a part of the grants in one transaction.
async fn commit_together(db: &Database, grants: &Arc<Vec<Grant>>, part: Range<usize>) -> Result<Written, DbError> {
    for _ in 0..MAX_ATTEMPTS {
        let (reads, places) = reads(&grants[part.clone()]);
        let (batch, tried) = (grants.clone(), part.clone());
        let work = db.transact_after("commit_grants", reads, move |conn, read| {
            let (grants, part) = (batch.clone(), tried.clone());
            Box::pin(async move { commit(conn, &grants[part], places, &read).await })
        });
        match work.await {
            Ok(committed) => return Ok(committed),
            Err(CommitError::Db(error)) => return Err(error),
            // The other transaction has committed: the next attempt finds its rows.
            Err(CommitError::ReservedElsewhere) => {}
        }
    }
    Err(DbError::inconsistent("orders of the same ids kept being reserved in other events"))
}

/// Returns the statements that lock the items of the grants and read the ledger under the lock.
fn reads(grants: &[Grant]) -> (Statements, ReadPlaces) {
    let orders: BTreeSet<OrderId> = grants.iter().map(|grant| grant.order_id).collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let buyers: BTreeSet<(ItemId, UserId)> = grants.iter().flat_map(buyers).collect();
    let mut reads = Statements::new();
    let ledger = LedgerPlaces::push(&mut reads, &orders, &buyers);
    let last_grants = store::stock::push_last_grants(&mut reads, &grants.iter().map(|grant| grant.event_id).collect());
    (reads, ReadPlaces { ledger, last_grants })
}

/// Decides by the rows that were read with the BEGIN, and writes. With the COMMIT these are three round trips, and four
/// if an order of the batch is in the ledger already.
async fn commit(
    conn: &mut MySqlConnection,
    grants: &[Grant],
    places: ReadPlaces,
    read: &Rows,
) -> Result<Written, CommitError> {
    let last_grants = store::stock::last_grants(read, places.last_grants)?;
    let mut ledger = places.ledger.read(read)?.with_last_grants(last_grants);
    let now = Timestamp::now();
    let outcomes: Vec<ReservationOutcome> = grants.iter().map(|grant| ledger.reserve(grant, now)).collect();
    let titles = places.ledger.titles(read)?;
    let labels: Vec<Vec<Label>> = outcomes.iter().map(|outcome| labels(&ledger, &titles, outcome)).collect();
    let changes = ledger.changes();
    // Only repeats need it, and most orders are new.
    let unconfirmed = store::reservations::unconfirmed(conn, &repeated(grants, &outcomes)).await?;
    let request_times = request_times(grants, &outcomes, unconfirmed, now);
    write(conn, grants, &outcomes, &changes, &request_times).await?;
    let answered: Vec<Answered> = grants.iter().filter_map(answered).collect();
    let committed = outcomes.into_iter().zip(request_times).zip(labels);
    let committed =
        committed.map(|((outcome, request_time), labels)| Committed { outcome, request_time, labels }).collect();
    Ok(Written { committed, syncs: syncs(&changes, answered, now), rolled_back: changes.rolled_back })
}

/// Returns the orders that were reserved before, in the ledger or earlier in the batch.
fn repeated(grants: &[Grant], outcomes: &[ReservationOutcome]) -> Vec<OrderId> {
    let all = grants.iter().zip(outcomes);
    let repeats = all.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if !units.is_new));
    let orders: BTreeSet<OrderId> = repeats.map(|(grant, _)| grant.order_id).collect();
    orders.into_iter().collect()
}

/// Writes the changes and the reservations. Fails if another transaction has rows of an order that is new here: the
/// same request_id with another body that names other items, perhaps of another event. Both have locked only their
/// items, so each sees the rows of the other only after it has written its own. The one that reads last finds them, and
/// waits for the other's end; the database ends one of two that deadlock.
async fn write(
    conn: &mut MySqlConnection,
    grants: &[Grant],
    outcomes: &[ReservationOutcome],
    changes: &Changes,
    request_times: &[Option<Timestamp>],
) -> Result<(), CommitError> {
    let new = grants.iter().zip(outcomes);
    let new = new.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if units.is_new));
    let new: HashMap<OrderId, &Grant> = new.map(|(grant, _)| (grant.order_id, grant)).collect();
    let request_times =
        grants.iter().zip(request_times).filter_map(|(grant, request_time)| Some((grant.order_id, (*request_time)?)));
    let mut writes = Statements::new();
    push_changes(&mut writes, changes);
    let rows = store::ledger::push_of_orders_locked(&mut writes, &new.keys().copied().collect::<Vec<_>>());
    store::reservations::push_insert(&mut writes, &request_times.collect::<Vec<_>>());
    let answers = writes.run(conn).await?;
    let is_foreign = |entry: &Entry| {
        let wanted = new.get(&entry.order_id).is_some_and(|grant| grant.names(entry.line.item_id));
        !wanted && !entry.is_void()
    };
    if store::ledger::entries(&answers, rows)?.iter().any(is_foreign) {
        Err(CommitError::ReservedElsewhere)
    } else {
        Ok(())
    }
}

fn labels(ledger: &LedgerBatch, titles: &HashMap<ItemId, Arc<Titles>>, outcome: &ReservationOutcome) -> Vec<Label> {
    let ReservationOutcome::Reserved(units) = outcome else { return Vec::new() };
    let label = |(line, unit_price): (&OrderedLine, Money)| Label {
        unit_price,
        titles: titles.get(&line.item_id).cloned().unwrap_or_default(),
    };
    units.lines.iter().zip(ledger.unit_prices(&units.lines)).map(label).collect()
}

/// Returns the unique request time of each reservation: of new orders, and of repeats whose orders are not known to be
/// written, those in `unconfirmed`.
fn request_times(
    grants: &[Grant],
    outcomes: &[ReservationOutcome],
    unconfirmed: HashSet<OrderId>,
    now: Timestamp,
) -> Vec<Option<Timestamp>> {
    let mut unconfirmed = unconfirmed;
    let new = grants.iter().zip(outcomes);
    let new = new.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if units.is_new));
    unconfirmed.extend(new.map(|(grant, _)| grant.order_id));
    let request_time = |(index, (grant, outcome)): (u64, (&Grant, &ReservationOutcome))| {
        let is_reserved = matches!(outcome, ReservationOutcome::Reserved(_));
        (is_reserved && unconfirmed.contains(&grant.order_id)).then(|| now.plus(Duration::from_micros(index)))
    };
    (0..).zip(grants.iter().zip(outcomes)).map(request_time).collect()
}

fn buyers(grant: &Grant) -> impl Iterator<Item = (ItemId, UserId)> + '_ {
    grant.lines.iter().map(|line| (line.item_id, grant.user_id))
}

/// Returns the order whose hold is dropped, together with a copy of what the ledger has of its buyer; `None` if it has
/// no hold. Without the copy, nothing in Redis would show that the order is committed.
fn answered(grant: &Grant) -> Option<Answered> {
    let items = || grant.lines.iter().map(|line| line.item_id).collect();
    (!grant.is_repeat).then(|| (grant.event_id, grant.order_id, items()))
}
