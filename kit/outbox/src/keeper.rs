//! Keeps the leases of a relay: renews them whatever the sending waits for, and takes or gives back partitions until
//! this relay has its fair share of them.
//!
//! It runs on the task of its relay, so that a relay that stands still loses its leases.

use crate::{
    PARTITIONS,
    desk::{Desk, Lease, Report, View},
    lease::{self, Standing},
    session::Session,
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

/// Time between two renewals. It is how far the floors in the database are behind.
const RENEW: Duration = Duration::from_secs(1);
/// The same while there is nothing to be written down, and nobody to share with.
const RENEW_IDLE: Duration = Duration::from_secs(2);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_millis(200);
/// How much earlier than in the database a lease ends here.
const MARGIN: Duration = Duration::from_millis(500);

/// The leases of one relay.
pub struct Keeper {
    db: Database,
    session: Session,
    owner: String,
    topic: String,
    desk: Arc<Desk>,
    view: watch::Sender<View>,
    leaving: BTreeSet<u16>,
    /// The floors that are in the database.
    written: BTreeMap<u16, u64>,
    renewed: Option<Instant>,
}

impl Keeper {
    /// Keeps leases as `owner`, and publishes them to `view`.
    pub fn new(db: Database, owner: String, topic: String, desk: Arc<Desk>, view: watch::Sender<View>) -> Self {
        let session = Session::new(db.clone());
        let (leaving, written) = (BTreeSet::new(), BTreeMap::new());
        Self { db, session, owner, topic, desk, view, leaving, written, renewed: None }
    }

    /// Renews until `halt`.
    pub async fn run(&mut self, halt: &CancellationToken) {
        let desk = self.desk.clone();
        while !halt.is_cancelled() {
            let pause = self.round().await;
            tokio::select! {
                () = halt.cancelled() => {}
                () = desk.urgent.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Gives every lease back, with its floor.
    pub async fn leave(&mut self) {
        let (report, db) = (self.desk.report(), self.db.clone());
        let left = async {
            let (mut conn, is_new) = self.session.open().await?;
            let floors = if is_new { BTreeMap::new() } else { self.trusted(&report) };
            lease::leave(&mut conn, &self.owner, &floors).await?;
            self.session.keep(conn);
            Ok::<_, DbError>(())
        };
        if let Err(error) = db.in_time("leave_outbox", left).await {
            tracing::warn!(error.cause = %error, "leases could not be given back, they will expire");
        }
        self.session.close().await;
    }

    /// Returns the pause before the next round.
    async fn round(&mut self) -> Duration {
        let report = self.desk.report();
        if self.may_rest(&report) {
            return RENEW;
        }
        match self.renew(&report).await {
            Ok(()) => RENEW,
            Err(error) => {
                tracing::warn!(messaging.topic = %self.topic, error.cause = %error, "relay cannot renew its leases, trying again");
                RETRY
            }
        }
    }

    /// Returns whether there is nothing to be written down for now: an idle relay must not keep the disk busy.
    fn may_rest(&self, report: &Report) -> bool {
        let view = self.view.borrow();
        let is_early = self.renewed.is_some_and(|renewed| renewed.elapsed() < RENEW_IDLE);
        let has_all = !view.has_others && view.leases.len() == usize::from(PARTITIONS) && self.leaving.is_empty();
        is_early && has_all && report.broken_until.is_none() && self.trusted(report) == self.written
    }

    /// Returns the floors that may be written down: those that were found under the present view.
    fn trusted(&self, report: &Report) -> BTreeMap<u16, u64> {
        if report.generation == self.view.borrow().generation { report.floors.clone() } else { BTreeMap::new() }
    }

    async fn renew(&mut self, report: &Report) -> Result<(), DbError> {
        // Before the statements: the database counts the term from a later instant, so this clock errs on the safe
        // side.
        let started = Instant::now();
        let (mut conn, is_new) = self.session.open().await?;
        // Floors of before may be above what a server has that lost its last commits.
        let floors = if is_new { BTreeMap::new() } else { self.trusted(report) };
        let is_broken = report.broken_until.is_some_and(|until| started < until);
        let released = self.released(report, is_broken);
        let db = self.db.clone();
        let standing = self.stand(&mut conn, &floors, &released, (is_new, is_broken));
        let stood = db.in_time("renew_leases", Box::pin(standing)).await;
        let standing = match stood {
            Ok(standing) => standing,
            Err(error) => {
                // A deadlock ends the transaction, not the connection.
                if error.is_deadlock() && !is_new && roll_back(&db, &mut conn).await.is_ok() {
                    self.session.keep(conn);
                }
                return Err(error);
            }
        };
        self.session.keep(conn);
        (self.renewed, self.written) = (Some(started), floors);
        self.publish(standing, started, is_new);
        Ok(())
    }

    /// Returns the partitions to be given back now.
    fn released(&self, report: &Report, is_broken: bool) -> Vec<u16> {
        let view = self.view.borrow();
        if is_broken {
            return view.leases.keys().copied().collect();
        }
        // Nothing of them is on its way, so the next holder cannot overtake this one.
        let is_drained = report.generation == view.generation;
        self.leaving.iter().copied().filter(|partition| is_drained && report.drained.contains(partition)).collect()
    }

    async fn stand(
        &mut self,
        conn: &mut MySqlConnection,
        floors: &BTreeMap<u16, u64>,
        released: &[u16],
        (is_new, is_broken): (bool, bool),
    ) -> Result<Standing, DbError> {
        let standing = lease::renew(conn, &self.owner, floors, released, is_new).await?;
        for partition in released {
            self.leaving.remove(partition);
        }
        if standing.has_dead {
            lease::forget_dead(conn).await?;
        }
        let wanted = share(standing.relays).saturating_sub(standing.mine.len()).min(standing.free);
        if wanted == 0 || is_broken {
            return Ok(standing);
        }
        let taken = lease::take(conn, &self.owner, wanted).await?;
        Ok(taken)
    }

    /// Publishes what this relay holds, and which of it is too much.
    fn publish(&mut self, standing: Standing, started: Instant, is_new: bool) {
        let Standing { mine, relays, has_others, .. } = standing;
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
            tracing::info!(messaging.topic = %self.topic, outbox.partitions = leases.len(), outbox.relays = relays, "relay leases changed");
        }
        let valid_until = started + lease::TERM - MARGIN;
        self.view.send_modify(|view| {
            let generation = view.generation + u64::from(is_new);
            *view = View { generation, leases, valid_until, has_others };
        });
    }
}

/// Rounded up, so that all shares together cover every partition.
fn share(relays: usize) -> usize {
    usize::from(PARTITIONS).div_ceil(relays.max(1))
}

async fn roll_back(db: &Database, conn: &mut MySqlConnection) -> Result<(), DbError> {
    let done = async { Ok(sqlx::raw_sql("ROLLBACK").execute(conn).await?) };
    db.in_time("roll_back_leases", done).await.map(drop)
}
