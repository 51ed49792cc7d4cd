//! When others could see that events opened and closed: noted after the commit, by the clock of the database.
//!
//! What the transition itself writes is from before its commit, which may take long, and by the clock that decided it.
//! This is what an audit can hold against that. No transition waits for it: it goes through a queue, and is missing for
//! those of a process that ends in between.

use crate::{
    domain::{Advanced, Schedule},
    store,
};
use stampede_db::{Database, DbError};
use stampede_vocab::EventId;
use std::time::Instant;
use tokio::sync::mpsc;

/// Most transactions that wait to be noted. What does not fit is not noted.
const QUEUE: usize = 256;

/// The transitions of one transaction.
#[derive(Debug)]
pub struct Seen {
    opened: Vec<EventId>,
    closed: Vec<EventId>,
    committed: Instant,
}

/// Hands over what was committed. Cheap to clone.
#[derive(Clone)]
pub struct SeenQueue {
    sender: mpsc::Sender<Seen>,
}

/// Notes what is handed over.
pub struct NoteSeen {
    db: Database,
    waiting: mpsc::Receiver<Seen>,
}

impl SeenQueue {
    /// To be called right after the commit of `advanced`. Never waits.
    pub(super) fn push(&self, advanced: &Advanced) {
        let ids = |schedules: &[Schedule]| schedules.iter().map(|schedule| schedule.event_id).collect();
        let (opened, closed) = (ids(&advanced.opened), ids(&advanced.closed));
        if self.sender.try_send(Seen { opened, closed, committed: Instant::now() }).is_err() {
            tracing::warn!("when events could be seen to open and close is not noted: too many wait for it");
        }
    }
}

impl NoteSeen {
    /// Notes the events of this schema.
    pub fn new(db: Database) -> (SeenQueue, Self) {
        let (sender, waiting) = mpsc::channel(QUEUE);
        (SeenQueue { sender }, Self { db, waiting })
    }

    /// Waits for what was committed next; `None` once nobody is left who commits.
    pub async fn next(&mut self) -> Option<Seen> {
        self.waiting.recv().await
    }

    /// Takes what was committed and is not noted yet.
    pub fn left(&mut self) -> Option<Seen> {
        self.waiting.try_recv().ok()
    }

    /// Notes it.
    pub async fn run(&self, seen: Seen) -> Result<(), DbError> {
        let work = self.db.run("note_seen_events", |mut conn| async move {
            store::events::note_opened(&mut conn, &seen.opened, seen.committed).await?;
            store::events::note_closed(&mut conn, &seen.closed, seen.committed).await
        });
        work.await
    }
}
