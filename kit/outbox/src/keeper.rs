//! Renews the leases of a relay, independent of its sending, and acquires or releases partitions until the relay has
//! its fair share of them.
//!
//! It runs on the task of its relay, so that a stalled relay loses its leases. A slow Kafka or database does not delay
//! a renewal: the sending waits for them in a future that is polled beside this one, over a connection of its own, and
//! between two waits it queues one round of messages at most.

use crate::{
    PARTITIONS,
    lease::{self, LeaseState},
    session::Session,
    shared::{Lease, Report, Shared, View},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// Time between two renewals, which is also the lag of the floors in the database.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// The same while the floors do not change and there is no other relay.
const IDLE_RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_millis(200);
/// How much earlier a lease expires here than in the database.
const MARGIN: Duration = Duration::from_millis(500);

/// The leases of one relay.
pub struct Keeper {
    db: Database,
    session: Session,
    owner: String,
    topic: String,
    shared: Arc<Shared>,
    view: watch::Sender<View>,
    leaving: BTreeSet<u16>,
    /// The floors that were written to the database.
    written: BTreeMap<u16, u64>,
    renewed: Option<Instant>,
}

impl Keeper {
    /// Keeps leases as `owner`, and publishes them to `view`.
    pub fn new(db: Database, owner: String, topic: String, shared: Arc<Shared>, view: watch::Sender<View>) -> Self {
        let session = Session::new(db.clone());
        let (leaving, written) = (BTreeSet::new(), BTreeMap::new());
        Self { db, session, owner, topic, shared, view, leaving, written, renewed: None }
    }

    /// Renews until `halt`.
    pub async fn run(&mut self, halt: &CancellationToken) {
        let shared = self.shared.clone();
        shared.renewed(Some(Instant::now()));
        while !halt.is_cancelled() {
            let pause = self.round().await;
            tokio::select! {
                () = halt.cancelled() => {}
                () = shared.urgent.notified() => {}
                () = sleep(pause) => {}
            }
        }
        shared.renewed(None);
    }

    /// Releases every lease, and writes its floor.
    pub async fn leave(&mut self) {
        let (report, db) = (self.shared.report(), self.db.clone());
        let left = async {
            let (mut conn, is_new) = self.session.open().await?;
            let floors = if is_new { BTreeMap::new() } else { self.trusted(&report) };
            lease::leave(&mut conn, &self.owner, &floors).await?;
            self.session.keep(conn);
            Ok::<_, DbError>(())
        };
        if let Err(error) = db.in_time("leave_outbox", left).await {
            tracing::warn!(error.cause = %error, "leases could not be released, they will expire");
        }
        self.session.close().await;
    }

    /// Renews once. Returns the pause before the next round.
    async fn round(&mut self) -> Duration {
        let report = self.shared.report();
        if self.can_skip(&report) {
            return RENEW_INTERVAL;
        }
        match self.renew(&report).await {
            Ok(()) => RENEW_INTERVAL,
            Err(error) => {
                tracing::warn!(messaging.topic = %self.topic, error.cause = %error, "relay cannot renew its leases, trying again");
                RETRY
            }
        }
    }

    /// Returns whether this renewal can be skipped: an idle relay must not keep the disk busy.
    fn can_skip(&self, report: &Report) -> bool {
        let view = self.view.borrow();
        let is_early = self.renewed.is_some_and(|renewed| renewed.elapsed() < IDLE_RENEW_INTERVAL);
        let has_all = !view.has_others && view.leases.len() == usize::from(PARTITIONS) && self.leaving.is_empty();
        is_early && has_all && report.broken_until.is_none() && self.trusted(report) == self.written
    }

    /// Returns the floors that may be written: those of the current generation.
    fn trusted(&self, report: &Report) -> BTreeMap<u16, u64> {
        if report.generation == self.view.borrow().generation { report.floors.clone() } else { BTreeMap::new() }
    }

    async fn renew(&mut self, report: &Report) -> Result<(), DbError> {
        // Taken before the statements: the database counts the term from a later instant, so the lease expires here
        // first.
        let started = Instant::now();
        let (mut conn, is_new) = self.session.open().await?;
        // A new connection may lead to a server that has lost its last commits: earlier floors may be too high for it.
        let floors = if is_new { BTreeMap::new() } else { self.trusted(report) };
        let is_broken = report.broken_until.is_some_and(|until| started < until);
        let released = self.released(report, is_broken);
        let db = self.db.clone();
        let state = self.renew_and_take(&mut conn, &floors, &released, (is_new, is_broken));
        let renewed = db.in_time("renew_leases", Box::pin(state)).await;
        let state = match renewed {
            Ok(state) => state,
            Err(error) => {
                // A deadlock rolls back the transaction, and the connection can be kept.
                if error.is_deadlock() && !is_new && roll_back(&db, &mut conn).await.is_ok() {
                    self.session.keep(conn);
                }
                return Err(error);
            }
        };
        self.session.keep(conn);
        (self.renewed, self.written) = (Some(started), floors);
        self.publish(state, started, is_new);
        self.shared.renewed(Some(started));
        Ok(())
    }

    /// Returns the partitions to be released now.
    fn released(&self, report: &Report, is_broken: bool) -> Vec<u16> {
        let view = self.view.borrow();
        if is_broken {
            return view.leases.keys().copied().collect();
        }
        // Nothing of them is in flight, so the next holder cannot overtake this one.
        let is_drained = report.generation == view.generation;
        self.leaving.iter().copied().filter(|partition| is_drained && report.drained.contains(partition)).collect()
    }

    async fn renew_and_take(
        &mut self,
        conn: &mut MySqlConnection,
        floors: &BTreeMap<u16, u64>,
        released: &[u16],
        (is_new, is_broken): (bool, bool),
    ) -> Result<LeaseState, DbError> {
        let state = lease::renew(conn, &self.owner, floors, released, is_new).await?;
        for partition in released {
            self.leaving.remove(partition);
        }
        if state.has_expired_relays {
            lease::delete_expired_relays(conn).await?;
        }
        let wanted = share(state.relays).saturating_sub(state.mine.len()).min(state.free);
        if wanted == 0 || is_broken {
            return Ok(state);
        }
        let taken = lease::take(conn, &self.owner, wanted).await?;
        Ok(taken)
    }

    /// Publishes the leases of this relay, and marks those above its share as leaving.
    fn publish(&mut self, state: LeaseState, started: Instant, is_new: bool) {
        let LeaseState { mine, relays, has_others, .. } = state;
        self.leaving.retain(|partition| mine.contains_key(partition));
        let too_many = (mine.len() - self.leaving.len()).saturating_sub(share(relays));
        let staying = mine.keys().rev().filter(|partition| !self.leaving.contains(*partition));
        let leaving: Vec<u16> = staying.take(too_many).copied().collect();
        self.leaving.extend(leaving);
        let lease = |(partition, epoch): (u16, u64)| {
            (partition, Lease { epoch, is_leaving: self.leaving.contains(&partition) })
        };
        let leases: BTreeMap<u16, Lease> = mine.into_iter().map(lease).collect();
        let before = self.view.borrow().leases.len();
        if before != leases.len() {
            tracing::info!(messaging.topic = %self.topic, lease.count = leases.len(), relay.count = relays, "relay leases changed");
        }
        let valid_until = started + lease::TERM - MARGIN;
        self.view.send_modify(|view| {
            let generation = view.generation + u64::from(is_new);
            *view = View { generation, leases, valid_until, has_others };
        });
    }
}

/// Returns the share of each relay, rounded up, so that all partitions are covered.
fn share(relays: usize) -> usize {
    usize::from(PARTITIONS).div_ceil(relays.max(1))
}

async fn roll_back(db: &Database, conn: &mut MySqlConnection) -> Result<(), DbError> {
    let done = async { Ok(sqlx::raw_sql("ROLLBACK").execute(conn).await?) };
    db.in_time("roll_back_leases", done).await.map(drop)
}
