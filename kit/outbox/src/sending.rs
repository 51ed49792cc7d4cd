//! Reads messages after the cursor, queues them at the producer, and handles acknowledgements.
//!
//! It waits for acknowledgements as long as it holds the lease: a slow Kafka makes it slow. Messages in flight are
//! dropped, and sent again by the next holder, only when the lease is lost.

mod read;

use self::read::{CHECKED, Deferred};
use crate::{
    append::hash,
    flow::{Flow, Item},
    lease,
    meters::Meters,
    reading::Reading,
    rows::{ReadResult, Row},
    send::{Flight, Sender, Unqueued},
    session::Session,
    shared::{Lease, Report, Shared, View},
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use rdkafka::error::KafkaError;
use stampede_db::{BatchLimit, Database, DbError};
use stampede_kafka::{Purging, partition_of};
use stampede_vocab::Linger;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A round costs a SELECT, requests to Kafka, and a wake-up of every consumer, whatever its size.
const LINGER: Linger =
    Linger { min: Duration::from_millis(10), per_message: Duration::from_millis(1), max: Duration::from_millis(100) };
/// Poll interval while other replicas are alive: their commits wake their own relay only, and may write into partitions
/// that this one leases.
const POLL_INTERVAL_WITH_OTHERS: Duration = Duration::from_millis(20);
/// Poll interval while there is no other replica: every commit wakes this relay.
const POLL_INTERVAL_ALONE: Duration = Duration::from_millis(250);
/// Pause after a failure of the database.
const RETRY: Duration = Duration::from_millis(200);
/// Time between two log lines about a broken Kafka client.
const BROKEN_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Most rows after the cursor, and most rows from gaps, in one read: fewer over a link that is too slow for them all.
const ROUND_ROWS: usize = 1_000;
/// Most waiting messages that are read again in one read.
const ROUND_RETRIES: usize = 500;
/// How many full reads in a row must end in time before the next ones ask for twice as many rows: a read that ends too
/// late costs the progress since the last floors. With some good reads before each attempt the floors go up.
const GOOD_READS: usize = 4;
/// Longest time to send what is left when the process stops: well within its drain, even if Kafka does not answer.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// The sending of one relay.
pub struct Sending {
    db: Database,
    session: Session,
    owner: String,
    topic: String,
    sender: Sender,
    /// Number of partitions of the topic; 0 while it is unknown, and nothing is sent until then.
    partitions: u32,
    counted: watch::Receiver<u32>,
    flights: FuturesUnordered<Flight>,
    /// The purge of recalled messages: nothing is sent until it has ended.
    purging: Option<Purging>,
    flow: Flow,
    reading: Reading,
    /// Most rows after the cursor, and most rows from gaps, in one read.
    page: BatchLimit,
    /// Rows that wait until all gaps have been read.
    deferred: Option<Deferred>,
    woken: Arc<Notify>,
    shared: Arc<Shared>,
    meters: Meters,
    view: watch::Receiver<View>,
    /// The last view of the leases, without any once they have expired.
    seen: View,
    check_at: Instant,
    /// Gaps of the next check: fewer after a check that met a lock, so that one transaction does not block all gaps
    /// from being given up.
    checked: usize,
    /// Until then the leases are released, and a broken Kafka client is not replaced again.
    broken_until: Option<Instant>,
    /// When a failed replacement was last logged.
    logged_broken: Option<Instant>,
    /// Other relays hold all partitions, by the last view.
    others_send: bool,
    /// Since when messages wait and none was acknowledged.
    waiting_since: Option<Instant>,
}

/// The result of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Round {
    read: usize,
    /// There may be more already.
    is_full: bool,
}

impl Sending {
    /// Sends through `sender` what is written into the outbox of `db`, in the partitions that `owner` leases.
    pub fn new(
        db: Database,
        owner: String,
        topic: String,
        sender: Sender,
        woken: Arc<Notify>,
        shared: Arc<Shared>,
        view: watch::Receiver<View>,
    ) -> Self {
        let counted = sender.partitions();
        Self {
            session: Session::new(db.clone()),
            db,
            owner,
            meters: Meters::new(topic.clone()),
            topic,
            sender,
            partitions: 0,
            counted,
            flights: FuturesUnordered::new(),
            purging: None,
            flow: Flow::new(1),
            reading: Reading::default(),
            page: BatchLimit::up_to(ROUND_ROWS).doubled_after(GOOD_READS),
            deferred: None,
            woken,
            shared,
            view,
            seen: View::none(),
            check_at: Instant::now(),
            checked: CHECKED,
            broken_until: None,
            logged_broken: None,
            others_send: false,
            waiting_since: None,
        }
    }

    /// Sends until `stop`, then sends what is left and returns.
    pub async fn run(&mut self, stop: &CancellationToken) {
        self.sender.count_partitions();
        while !stop.is_cancelled() {
            let round = self.round().await;
            // No pause while there is a backlog: the batches are full.
            if round.is_full {
                continue;
            }
            self.wait_for_acks(Instant::now() + LINGER.after(round.read), false, stop).await;
            // `Notify` keeps one permit, so a commit during the pause ends this wait at once.
            let poll = if self.seen.has_others { POLL_INTERVAL_WITH_OTHERS } else { POLL_INTERVAL_ALONE };
            self.wait_for_acks(Instant::now() + poll, true, stop).await;
        }
        self.finish().await;
        self.session.close().await;
        self.shared.heartbeat(None);
    }

    /// Sends what the last commits wrote. Nothing is in flight afterwards.
    async fn finish(&mut self) {
        let (until, never) = (Instant::now() + FINISH_TIMEOUT, CancellationToken::new());
        loop {
            let round = self.round().await;
            let is_done = round == Round::default() && self.flow.in_flight() + self.flow.waiting() == 0;
            if is_done || Instant::now() >= until {
                break;
            }
            self.wait_for_acks(until.min(Instant::now() + POLL_INTERVAL_WITH_OTHERS), false, &never).await;
        }
        if self.flow.in_flight() + self.flow.waiting() > 0 {
            tracing::warn!(messaging.topic = %self.topic, "stopped before everything was sent; the next relay sends it");
            self.recall();
            self.purged().await;
        }
        self.report();
    }

    /// Handles acknowledgements until this instant, or until there is something else to do.
    async fn wait_for_acks(&mut self, until: Instant, may_be_woken: bool, stop: &CancellationToken) {
        let mut until = until;
        if !self.reading.lanes().is_empty() {
            // Nothing may be in flight when the leases have expired.
            until = until.min(self.seen.valid_until);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.woken.notified(), if may_be_woken => return,
                Ok(()) = self.view.changed() => return,
                Ok(()) = self.counted.changed() => return,
                Some((ticket, outcome)) = self.flights.next(), if !self.flights.is_empty() => {
                    self.completed(ticket, outcome);
                    if may_be_woken && self.has_ready() {
                        return;
                    }
                }
                () = sleep_until(until) => return,
            }
        }
    }

    async fn round(&mut self) -> Round {
        self.shared.heartbeat(Some(Instant::now()));
        // All completed deliveries, however many: they make room for the next messages.
        while let Some(Some((ticket, outcome))) = unconstrained(self.flights.next()).now_or_never() {
            self.completed(ticket, outcome);
        }
        self.replace_broken_producer();
        if self.flow.is_forgotten(Instant::now()) {
            tracing::warn!(
                messaging.topic = %self.topic,
                "Kafka has acknowledged nothing for long, sending one message at a time"
            );
            self.recall();
        }
        self.apply_leases();
        self.purged().await;
        let round = match self.try_round().await {
            Ok(round) => round,
            Err(error) => {
                tracing::warn!(messaging.topic = %self.topic, error.cause = %error, "relay cannot reach its outbox, trying again");
                sleep(RETRY).await;
                Round::default()
            }
        };
        self.report();
        round
    }

    fn completed(&mut self, ticket: u64, outcome: Result<(), KafkaError>) {
        let Some(item) = self.flow.completed(ticket) else { return };
        match outcome {
            Ok(()) => {
                self.flow.acknowledged(item, Instant::now());
                self.reading.sent(item.partition, item.id);
                self.meters.sent();
                self.waiting_since = None;
            }
            // The next holder sends it: the floor stays below.
            Err(_) if !self.is_sending(item.partition) => {}
            // Everything in flight has failed for the same reason, which is logged once.
            Err(_) if self.sender.fatal_error().is_some() => self.flow.wait(item),
            Err(error) => {
                tracing::warn!(outbox.id = item.id, messaging.topic = %self.topic, error.cause = %error, "message was not acknowledged, it is sent again");
                self.refused(item);
            }
        }
    }

    /// Blocks the aggregate of a refused message.
    fn refused(&mut self, item: Item) {
        if self.flow.refused(item, Instant::now()) {
            self.recall();
        }
    }

    /// Purges everything in flight, to send it again.
    fn recall(&mut self) {
        self.purge();
        self.flow.recall();
    }

    fn purge(&mut self) {
        // A purge that is under way covers everything: nothing was queued since it began.
        if self.purging.is_none() {
            self.purging = Some(self.sender.purge());
        }
    }

    /// Waits for the end of a purge, not for long at a time: the leases must be checked meanwhile.
    async fn purged(&mut self) {
        if let Some(purging) = &mut self.purging
            && timeout(POLL_INTERVAL_ALONE, purging).await.is_ok()
        {
            self.purging = None;
        }
    }

    /// Returns whether a waiting message could be sent now.
    fn has_ready(&self) -> bool {
        self.purging.is_none() && self.flow.has_ready(Instant::now())
    }

    /// Replaces the producer after a fatal error, and releases the leases for as long as another relay needs to acquire
    /// them. If no new producer can be created, tries again after that.
    fn replace_broken_producer(&mut self) {
        let Some(reason) = self.sender.fatal_error() else { return };
        let now = Instant::now();
        if self.broken_until.is_some_and(|until| now < until) {
            return;
        }
        let is_logged = self.logged_broken.is_some_and(|logged| now.duration_since(logged) < BROKEN_LOG_INTERVAL);
        if !is_logged {
            tracing::error!(messaging.topic = %self.topic, error.cause = reason, "the Kafka producer is broken for good, making another");
        }
        match self.sender.replace() {
            Ok(()) => self.logged_broken = None,
            Err(_) if is_logged => {}
            Err(error) => {
                tracing::error!(messaging.topic = %self.topic, error.cause = %error, "no Kafka producer can be made, trying again");
                self.logged_broken = Some(now);
            }
        }
        self.start_over();
        self.broken_until = Some(now + lease::TERM);
    }

    /// Drops all state, so that everything is read again from the floors.
    fn start_over(&mut self) {
        if self.flow.in_flight() > 0 {
            self.purge();
        }
        // Their outcomes must not be handled: the new flow reuses the tickets.
        self.flights.clear();
        self.flow = Flow::new(self.partitions);
        (self.reading, self.deferred) = (Reading::default(), None);
    }

    /// Reads the current leases, and drops partitions that are no longer held.
    fn apply_leases(&mut self) {
        let now = Instant::now();
        let known = self.seen.generation;
        self.seen = self.view.borrow_and_update().clone();
        self.broken_until = self.broken_until.filter(|until| now < *until);
        self.others_send = now < self.seen.valid_until && self.seen.leases.is_empty() && self.seen.has_others;
        if now >= self.seen.valid_until || self.broken_until.is_some() {
            self.seen.leases.clear();
        }
        if self.seen.generation != known {
            self.session.forget();
            self.start_over();
        }
        let partitions = *self.counted.borrow_and_update();
        if partitions != self.partitions {
            self.partitions = partitions;
            self.start_over();
        }
        let is_lost = |epoch: u64, lease: Option<&Lease>| lease.is_none_or(|lease| lease.epoch != epoch);
        let lanes = self.reading.lanes().iter();
        let lost: Vec<u16> = lanes
            .filter(|(partition, lane)| is_lost(lane.epoch, self.seen.leases.get(*partition)))
            .map(|(partition, _)| *partition)
            .collect();
        self.drop_lost(&lost);
        let leaving: Vec<u16> = self.leaving().filter(|partition| self.is_sending(*partition)).collect();
        for partition in leaving {
            self.reading.freeze(partition);
            self.flow.drop_waiting(partition);
        }
    }

    fn leaving(&self) -> impl Iterator<Item = u16> {
        self.seen.leases.iter().filter(|(_, lease)| lease.is_leaving).map(|(partition, _)| *partition)
    }

    fn is_sending(&self, partition: u16) -> bool {
        self.reading.lanes().get(&partition).is_some_and(|lane| !lane.is_leaving)
    }

    fn drop_lost(&mut self, lost: &[u16]) {
        if self.flow.has_in_flight(|partition| lost.contains(&partition)) {
            tracing::warn!(messaging.topic = %self.topic, lease.count = lost.len(), "leases were lost with messages in flight; the next holder sends them");
            // The producer does not know partitions of the outbox: everything is purged, and what is still leased is
            // sent again.
            self.recall();
            for (partition, _) in self.reading.lanes().iter().filter(|(_, lane)| lane.is_leaving) {
                self.flow.drop_waiting(*partition);
            }
        }
        for partition in lost {
            self.flow.drop_waiting(*partition);
            self.reading.leave(*partition);
        }
    }

    async fn try_round(&mut self) -> Result<Round, DbError> {
        if self.seen.leases.is_empty() {
            return Ok(Round::default());
        }
        let (mut conn, is_new) = self.session.open().await?;
        if is_new {
            self.start_over();
            self.purged().await;
        }
        let (db, until) = (self.db.clone(), self.seen.valid_until);
        let (most, most_retries) = (self.page.get(), self.most_retries());
        let read = db.in_time("read_outbox", Box::pin(self.read(&mut conn)));
        // A read that ends after the leases have expired is of no use.
        let read = timeout_at(until, read).await.unwrap_or(Err(DbError::BrokenOff("read_outbox")));
        if matches!(read, Err(DbError::TimedOut { .. } | DbError::BrokenOff(_))) {
            // Everything is read again: as many rows would take too long again.
            self.page.too_large(most);
        }
        let read = read?;
        self.session.keep(conn);
        let Some((answer, ready)) = read else { return Ok(Round::default()) };
        let read = answer.next.len() + ready.len();
        let is_page_full = answer.next.len() >= most;
        self.page.succeeded(answer.next.len());
        let is_behind = is_page_full || answer.filled.len() >= most || self.deferred.is_some();
        let has_taken_all_it_may = ready.len() >= most_retries;
        for row in self.note(answer, ready) {
            self.send(&row);
        }
        // Not if the queue of the producer is full.
        Ok(Round { read, is_full: is_behind || (has_taken_all_it_may && self.has_ready()) })
    }

    /// Most waiting messages that are read again in the next read.
    fn most_retries(&self) -> usize {
        ROUND_RETRIES.min(self.page.get())
    }

    /// Notes the rows that were read. Returns those to be sent, ordered by id.
    fn note(&mut self, answer: ReadResult, ready: Vec<Item>) -> Vec<Row> {
        let now = Instant::now();
        let mut gone: HashMap<u64, Item> = ready.into_iter().map(|item| (item.id, item)).collect();
        let mut rows = answer.by_id;
        for row in &rows {
            gone.remove(&row.id);
        }
        for item in gone.into_values() {
            tracing::warn!(outbox.id = item.id, messaging.topic = %self.topic, "message was deleted before it was sent");
            self.reading.sent(item.partition, item.id);
        }
        let reading = &mut self.reading;
        rows.extend(answer.filled.into_iter().filter(|row| reading.find(row.id, row.partition_no, row.created_us)));
        rows.extend(answer.next.into_iter().filter(|row| reading.pass(row.id, row.partition_no, row.created_us, now)));
        rows.sort_unstable_by_key(|row| row.id);
        rows
    }

    fn send(&mut self, row: &Row) {
        let slot = partition_of(row.aggregate_id.as_bytes(), self.partitions);
        let item = Item { id: row.id, partition: row.partition_no, slot: slot as usize, key: hash(&row.aggregate_id) };
        let now = Instant::now();
        if now >= self.seen.valid_until || self.partitions == 0 || self.purging.is_some() {
            // The next round decides by the leases whether this relay still sends it.
            self.flow.wait(item);
        } else if self.flow.admits(item, now) {
            match self.sender.enqueue(row, slot) {
                Ok(delivery) => self.flights.push(Flight { ticket: self.flow.queued(item), delivery }),
                Err(Unqueued::Full) => self.flow.full(item, now),
                Err(Unqueued::Refused) => self.refused(item),
            }
        }
    }

    /// Publishes a report, and measures.
    fn report(&mut self) {
        let floors = self.reading.floors();
        let is_idle = self.purging.is_none();
        let is_drained = |partition: &u16| is_idle && !self.flow.has_in_flight(|of| of == *partition);
        let drained = self.leaving().filter(is_drained).collect();
        let (generation, broken_until) = (self.seen.generation, self.broken_until);
        let has_unsent = self.reading.unsent().0 > 0;
        self.waiting_since = has_unsent.then(|| self.waiting_since.unwrap_or_else(Instant::now));
        let waiting_since = self.waiting_since;
        self.shared.publish(Report { generation, floors, drained, broken_until, waiting_since });
        // Without a partition the unsent messages are unknown, unless other relays hold all partitions.
        let (reading, others_send) = (&self.reading, self.others_send);
        let is_known = others_send || !reading.lanes().is_empty();
        self.meters.measure(|| is_known.then(|| reading.unsent()));
    }
}
