//! Commits in the ledger what the script has granted, before anybody is answered. Grants of one event that queue while
//! its transactions are under way go into the next one together.

use super::{
    Error, SyncRedis,
    event_queues::EventQueues,
    ledger::{Answered, LedgerPlaces, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::{
    domain::{Changes, Entry, Grant, Label, LedgerBatch, OrderedLine, ReservationOutcome, Titles},
    store,
};
use futures_util::future::BoxFuture;
use sqlx::MySqlConnection;
use stampede_batch::{BatchConfig, Batcher};
use stampede_db::{Answers as Rows, Database, DbError, Statements, WorkError};
use stampede_vocab::{ItemId, Money, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// Two at a time: the second reads its connection and queues for the lock while the first one commits. What is behind
/// four full ones waits for so long that it is better refused. A grant that nobody waits for any more is not committed:
/// its hold is dropped as one that the ledger does not have, sooner than the units of an order that is never written go
/// back.
const COMMIT: BatchConfig =
    BatchConfig { name: "commit_grants", max_batch: 512, max_in_flight: 2, max_queued: 2_048, must_run: false };
/// Longest wait for the ledger. Whoever waits in the same call is kept no longer by an event whose rows are locked.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);
/// How often a batch is tried that meets an order which is being reserved in another event.
const ROUNDS: u32 = 4;

/// The answer of the ledger.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub outcome: ReservationOutcome,
    /// Names this request when the units are given back; none if the order is known to be written.
    pub request_time: Option<Timestamp>,
    /// What each line of a reservation costs and is called, as staged.
    pub labels: Vec<Label>,
}

type Answers = Vec<Result<Committed, DbError>>;

/// Why a batch was rolled back.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("an order of the batch was reserved in another event at the same time")]
    Shared,
}

impl WorkError for CommitError {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Shared => None,
        }
    }
}

/// Commits grants. Clones share the queues.
#[derive(Clone)]
pub(super) struct CommitGrants {
    queues: EventQueues<Grant, Result<Committed, DbError>>,
}

impl CommitGrants {
    /// Commits in this schema, and copies the changes to Redis after it. Needs a tokio runtime.
    pub(super) fn new(db: Database, sync: SyncRedis) -> Self {
        let queue = move || {
            let (db, sync) = (db.clone(), sync.clone());
            Batcher::new(COMMIT, move |grants| commit_all(db.clone(), sync.clone(), grants))
        };
        Self { queues: EventQueues::new(queue) }
    }

    /// Commits one grant, or finds that the ledger has its order. After a failure the units may be committed all the
    /// same: asking again gives the same answer, and what nobody asks for again is swept.
    pub(super) async fn commit(&self, grant: Grant) -> Result<Committed, Error> {
        let queue = self.queues.of(grant.event_id);
        let timed_out = |_| DbError::TimedOut { name: COMMIT.name, after: ANSWER_TIMEOUT };
        Ok(timeout(ANSWER_TIMEOUT, queue.call(grant)).await.map_err(timed_out)???)
    }
}

/// Commits all in one transaction. Where that fails for what is in it, and not for the database, each half is tried, so
/// that a row that can't be read fails nobody but whoever asked for it.
fn commit_all(db: Database, sync: SyncRedis, grants: Vec<Grant>) -> BoxFuture<'static, Answers> {
    Box::pin(async move {
        let grants = Arc::new(grants);
        let error = match commit_together(&db, &grants).await {
            Ok((committed, syncs)) => {
                // Nobody waits for Redis: until it has the copy, the holds stand for the units.
                sync.start(syncs);
                return committed.into_iter().map(Ok).collect();
            }
            Err(error) => error,
        };
        if grants.len() == 1 || !error.is_of_data() {
            return vec![Err(error); grants.len()];
        }
        tracing::warn!(batch.len = grants.len(), error.cause = %error, "a batch of grants could not be committed, trying its halves");
        let mut first = Arc::unwrap_or_clone(grants);
        let second = first.split_off(first.len() / 2);
        let mut answers = commit_all(db.clone(), sync.clone(), first).await;
        answers.extend(commit_all(db, sync, second).await);
        answers
    })
}

async fn commit_together(db: &Database, grants: &Arc<Vec<Grant>>) -> Result<(Vec<Committed>, Vec<EventSync>), DbError> {
    for _ in 0..ROUNDS {
        let (reads, ledger) = reads(grants);
        let batch = grants.clone();
        let work = db.transact_after("commit_grants", reads, move |conn, read| {
            let grants = batch.clone();
            Box::pin(async move { commit(conn, &grants, ledger, &read).await })
        });
        match work.await {
            Ok(committed) => return Ok(committed),
            Err(CommitError::Db(error)) => return Err(error),
            // The other one has committed: the next round finds its rows.
            Err(CommitError::Shared) => {}
        }
    }
    Err(DbError::inconsistent("orders of the same ids kept being reserved in other events"))
}

/// Locks the items of the grants and reads the ledger under the lock.
fn reads(grants: &[Grant]) -> (Statements, LedgerPlaces) {
    let orders: BTreeSet<OrderId> = grants.iter().map(|grant| grant.order_id).collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let buyers: BTreeSet<(ItemId, UserId)> = grants.iter().flat_map(buyers).collect();
    let mut reads = Statements::new();
    let ledger = LedgerPlaces::push(&mut reads, &orders, &buyers);
    (reads, ledger)
}

/// Decides by what was read with the BEGIN, and writes. With the COMMIT these are three round trips, and four where an
/// order of the batch is there already.
async fn commit(
    conn: &mut MySqlConnection,
    grants: &[Grant],
    places: LedgerPlaces,
    read: &Rows,
) -> Result<(Vec<Committed>, Vec<EventSync>), CommitError> {
    let mut ledger = places.read(read)?;
    let now = Timestamp::now();
    let outcomes: Vec<ReservationOutcome> = grants.iter().map(|grant| ledger.reserve(grant, now)).collect();
    let titles = places.titles(read)?;
    let labels: Vec<Vec<Label>> = outcomes.iter().map(|outcome| labels(&ledger, &titles, outcome)).collect();
    let changes = ledger.changes();
    // Only of repeats it matters whether somebody has asked before, and most orders are new.
    let open = store::reservations::asked_for(conn, &repeated(grants, &outcomes)).await?;
    let asked = request_time(grants, &outcomes, open, now);
    write(conn, grants, &outcomes, &changes, &asked).await?;
    let committed = outcomes.into_iter().zip(asked).zip(labels);
    let committed =
        committed.map(|((outcome, request_time), labels)| Committed { outcome, request_time, labels }).collect();
    Ok((committed, syncs(&changes, grants.iter().map(answered))))
}

/// The orders that were reserved before, in the ledger or earlier in the batch.
fn repeated(grants: &[Grant], outcomes: &[ReservationOutcome]) -> Vec<OrderId> {
    let all = grants.iter().zip(outcomes);
    let repeats = all.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if !units.is_new));
    let orders: BTreeSet<OrderId> = repeats.map(|(grant, _)| grant.order_id).collect();
    orders.into_iter().collect()
}

/// Writes what was decided and who has asked. Fails if another transaction has rows of an order that is new here: the
/// same request_id with another body that names other items, perhaps of another event. Only items are locked before, so
/// each sees the rows of the other no earlier than behind its own. Whichever reads last meets those of the other, and
/// waits for its end; of two that wait for each other the database ends one.
async fn write(
    conn: &mut MySqlConnection,
    grants: &[Grant],
    outcomes: &[ReservationOutcome],
    changes: &Changes,
    asked: &[Option<Timestamp>],
) -> Result<(), CommitError> {
    let new = grants.iter().zip(outcomes);
    let new = new.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if units.is_new));
    let new: HashMap<OrderId, &Grant> = new.map(|(grant, _)| (grant.order_id, grant)).collect();
    let asked = grants.iter().zip(asked).filter_map(|(grant, request_time)| Some((grant.order_id, (*request_time)?)));
    let mut writes = Statements::new();
    push_changes(&mut writes, changes);
    let rows = store::ledger::push_of_orders_locked(&mut writes, &new.keys().copied().collect::<Vec<_>>());
    store::reservations::push_insert(&mut writes, &asked.collect::<Vec<_>>());
    let answers = writes.run(conn).await?;
    let is_foreign = |entry: &Entry| {
        let wanted = new.get(&entry.order_id).is_some_and(|grant| grant.names(entry.line.item_id));
        !wanted && !entry.is_void()
    };
    if store::ledger::entries(&answers, rows)?.iter().any(is_foreign) { Err(CommitError::Shared) } else { Ok(()) }
}

fn labels(ledger: &LedgerBatch, titles: &HashMap<ItemId, Arc<Titles>>, outcome: &ReservationOutcome) -> Vec<Label> {
    let ReservationOutcome::Reserved(units) = outcome else { return Vec::new() };
    let label = |(line, unit_price): (&OrderedLine, Money)| Label {
        unit_price,
        titles: titles.get(&line.item_id).cloned().unwrap_or_default(),
    };
    units.lines.iter().zip(ledger.unit_prices(&units.lines)).map(label).collect()
}

/// When each has asked for what is reserved, each at an instant of its own: of new orders, and of repeats unless their
/// order is known to be written, which those in `open` are not.
fn request_time(
    grants: &[Grant],
    outcomes: &[ReservationOutcome],
    open: HashSet<OrderId>,
    now: Timestamp,
) -> Vec<Option<Timestamp>> {
    let mut open = open;
    let new = grants.iter().zip(outcomes);
    let new = new.filter(|(_, outcome)| matches!(outcome, ReservationOutcome::Reserved(units) if units.is_new));
    open.extend(new.map(|(grant, _)| grant.order_id));
    let request_time = |(index, (grant, outcome)): (u64, (&Grant, &ReservationOutcome))| {
        let is_reserved = matches!(outcome, ReservationOutcome::Reserved(_));
        (is_reserved && open.contains(&grant.order_id)).then(|| now.plus(Duration::from_micros(index)))
    };
    (0..).zip(grants.iter().zip(outcomes)).map(request_time).collect()
}

fn buyers(grant: &Grant) -> impl Iterator<Item = (ItemId, UserId)> + '_ {
    grant.lines.iter().map(|line| (line.item_id, grant.user_id))
}

fn answered(grant: &Grant) -> Answered {
    (grant.event_id, grant.order_id, grant.lines.iter().map(|line| line.item_id).collect())
}
