//! Records when others could see that events opened and closed: after the commit, by the clock of the database.
//!
//! The time that a transition itself writes is from before its commit, which may take long, and by the clock that
//! decided it. An audit compares the two. It is asynchronous, through a queue, and best effort: if the process ends in
//! between, the times are missing.

use crate::{
    domain::{Advanced, Schedule},
    store,
};
use stampede_db::{Database, DbError};
use stampede_vocab::EventId;
use std::time::Instant;
use tokio::sync::mpsc;

/// Capacity of the queue, in transactions. What does not fit is dropped.
const MAX_QUEUED: usize = 256;

/// The transitions of one committed transaction.
#[derive(Debug)]
pub struct Seen {
    opened: Vec<EventId>,
    closed: Vec<EventId>,
    committed: Instant,
}

/// Queues committed transitions. Cheap to clone.
#[derive(Clone)]
pub struct SeenQueue {
    sender: mpsc::Sender<Seen>,
}

pub struct NoteSeen {
    db: Database,
    receiver: mpsc::Receiver<Seen>,
}

impl SeenQueue {
    /// Queues the transitions of `advanced`. To be called right after the commit. Never waits.
    pub(super) fn push(&self, advanced: &Advanced) {
        let ids = |schedules: &[Schedule]| schedules.iter().map(|schedule| schedule.event_id).collect();
        let (opened, closed) = (ids(&advanced.opened), ids(&advanced.closed));
        if self.sender.try_send(Seen { opened, closed, committed: Instant::now() }).is_err() {
            tracing::warn!("when events could be seen to open and close is not noted: too many wait for it");
        }
    }
}

impl NoteSeen {
    /// Returns both ends of a queue for the events of this schema.
    pub fn new(db: Database) -> (SeenQueue, Self) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        (SeenQueue { sender }, Self { db, receiver })
    }

    /// Waits for the next transitions; `None` once the queue is closed.
    pub async fn next(&mut self) -> Option<Seen> {
        self.receiver.recv().await
    }

    /// Returns queued transitions without waiting; `None` if the queue is empty.
    pub fn try_next(&mut self) -> Option<Seen> {
        self.receiver.try_recv().ok()
    }

    pub async fn run(&self, seen: Seen) -> Result<(), DbError> {
        let work = self.db.run("note_seen_events", |mut conn| async move {
            store::events::note_opened(&mut conn, &seen.opened, seen.committed).await?;
            store::events::note_closed(&mut conn, &seen.closed, seen.committed).await
        });
        work.await
    }
}
