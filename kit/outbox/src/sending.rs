//! Reads what is behind the cursor, queues it at the producer, and takes note of what Kafka has.
//!
//! It waits for acknowledgements as long as it holds the lease: a slow Kafka makes it slow. What is on its way is given
//! up, and sent again by the next holder, only when the lease is lost.

mod read;

use self::read::{AGAIN, CHECKED, Held, ROUND};
use crate::{
    append::hash,
    desk::{Desk, Lease, Report, View},
    flow::{Flow, Item},
    lease,
    meters::Meters,
    reading::Reading,
    rows::{Answer, FILLED, Row},
    send::{Flight, Sender, Unqueued},
    session::Session,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use rdkafka::error::KafkaError;
use stampede_db::{Database, DbError};
use stampede_kafka::{Purging, partition_of};
use stampede_vocab::Linger;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A round has a SELECT, requests to Kafka, and wakes every reader, for one message as for many.
const LINGER: Linger =
    Linger { min: Duration::from_millis(10), per_message: Duration::from_millis(1), max: Duration::from_millis(100) };
/// Poll interval while other replicas are alive: their commits wake their own relay only, and may write into partitions
/// that this one leases.
const POLL_INTERVAL_WITH_OTHERS: Duration = Duration::from_millis(20);
/// Poll interval while there is no other replica: every commit wakes this relay.
const POLL_INTERVAL_ALONE: Duration = Duration::from_millis(250);
/// Pause after a failure of the database.
const RETRY: Duration = Duration::from_millis(200);
/// Time between two log lines about a Kafka client that cannot be made anew.
const TELL_BROKEN: Duration = Duration::from_secs(60);
/// Longest time to send what is left when the process stops: well within its drain, even if Kafka is silent.
const FINISH: Duration = Duration::from_secs(3);

/// The sending of one relay.
pub struct Sending {
    db: Database,
    session: Session,
    owner: String,
    topic: String,
    sender: Sender,
    /// How many partitions the topic has; 0 as long as it is not known, and nothing is sent until then.
    partitions: u32,
    counted: watch::Receiver<u32>,
    flights: FuturesUnordered<Flight>,
    /// What the producer may still have of messages that were given up: nothing is sent until it has ended.
    purging: Option<Purging>,
    flow: Flow,
    reading: Reading,
    /// What was read behind the cursor, until every gap has been looked into; `None` if there is no such.
    held: Option<Held>,
    woken: Arc<Notify>,
    desk: Arc<Desk>,
    meters: Meters,
    view: watch::Receiver<View>,
    /// The view as of the last look, without leases if they have run out.
    seen: View,
    check_at: Instant,
    /// Gaps of the next check: fewer after one that met a lock, so that one transaction does not keep all from being
    /// given up.
    checked: usize,
    /// Until then the leases are given up, and a Kafka client that is broken is not made anew again.
    broken_until: Option<Instant>,
    /// When it was last logged that none can be made.
    told_broken: Option<Instant>,
    /// Other relays have every partition, as far as is known.
    others_send: bool,
}

/// What a round has read.
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
        desk: Arc<Desk>,
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
            held: None,
            woken,
            desk,
            view,
            seen: View::none(),
            check_at: Instant::now(),
            checked: CHECKED,
            broken_until: None,
            told_broken: None,
            others_send: false,
        }
    }

    /// Sends until `stop`, then sends what is left and returns.
    pub async fn run(&mut self, stop: &CancellationToken) {
        self.sender.count_partitions();
        while !stop.is_cancelled() {
            let round = self.round().await;
            // A backlog is worked off without a pause: the batches are as large as they get.
            if round.is_full {
                continue;
            }
            self.rest(Instant::now() + LINGER.after(round.read), false, stop).await;
            // `Notify` keeps one permit, so a commit during the pause ends this wait at once.
            let poll = if self.seen.has_others { POLL_INTERVAL_WITH_OTHERS } else { POLL_INTERVAL_ALONE };
            self.rest(Instant::now() + poll, true, stop).await;
        }
        self.finish().await;
        self.session.close().await;
        self.desk.beat(None);
    }

    /// Sends what the last commits wrote. Nothing is on its way afterwards.
    async fn finish(&mut self) {
        let (until, never) = (Instant::now() + FINISH, CancellationToken::new());
        loop {
            let round = self.round().await;
            let is_done = round == Round::default() && self.flow.in_flight() + self.flow.waiting() == 0;
            if is_done || Instant::now() >= until {
                break;
            }
            self.rest(until.min(Instant::now() + POLL_INTERVAL_WITH_OTHERS), false, &never).await;
        }
        if self.flow.in_flight() + self.flow.waiting() > 0 {
            tracing::warn!(messaging.topic = %self.topic, "stopped before everything was sent; the next relay sends it");
            self.recall();
            self.purged().await;
        }
        self.tell();
    }

    /// Takes note of acknowledgements until this instant, or until there is something to do.
    async fn rest(&mut self, until: Instant, may_be_woken: bool, stop: &CancellationToken) {
        let mut until = until;
        if !self.reading.lanes().is_empty() {
            // Nothing may be on its way when the leases have run out.
            until = until.min(self.seen.valid_until);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.woken.notified(), if may_be_woken => return,
                Ok(()) = self.view.changed() => return,
                Ok(()) = self.counted.changed() => return,
                Some((ticket, outcome)) = self.flights.next(), if !self.flights.is_empty() => {
                    self.landed(ticket, outcome);
                    if may_be_woken && self.has_ready() {
                        return;
                    }
                }
                () = sleep_until(until) => return,
            }
        }
    }

    async fn round(&mut self) -> Round {
        self.desk.beat(Some(Instant::now()));
        // All that has landed, however much: it makes room for what is read next.
        while let Some(Some((ticket, outcome))) = unconstrained(self.flights.next()).now_or_never() {
            self.landed(ticket, outcome);
        }
        self.replace_broken_producer();
        if self.flow.is_forgotten(Instant::now()) {
            tracing::warn!(
                messaging.topic = %self.topic,
                "Kafka has acknowledged nothing for long, sending one message at a time"
            );
            self.recall();
        }
        self.follow();
        self.purged().await;
        let round = match self.try_round().await {
            Ok(round) => round,
            Err(error) => {
                tracing::warn!(messaging.topic = %self.topic, error.cause = %error, "relay cannot reach its outbox, trying again");
                sleep(RETRY).await;
                Round::default()
            }
        };
        self.tell();
        round
    }

    fn landed(&mut self, ticket: u64, outcome: Result<(), KafkaError>) {
        let Some(item) = self.flow.landed(ticket) else { return };
        match outcome {
            Ok(()) => {
                self.flow.acknowledged(item, Instant::now());
                self.reading.sent(item.partition, item.id);
                self.meters.sent();
            }
            // The next holder sends it: the floor stays below.
            Err(_) if !self.is_sending(item.partition) => {}
            // All that was on its way has failed; it is not worth a line each.
            Err(_) if self.sender.fatal_error().is_some() => self.flow.wait(item),
            Err(error) => {
                tracing::warn!(outbox.id = item.id, messaging.topic = %self.topic, error.cause = %error, "message was not acknowledged, it is sent again");
                self.refused(item);
            }
        }
    }

    /// Keeps back a message that was refused, and what is behind it.
    fn refused(&mut self, item: Item) {
        if self.flow.refused(item, Instant::now()) {
            self.recall();
        }
    }

    /// Gives up what is on its way, to send it again.
    fn recall(&mut self) {
        self.purge();
        self.flow.recall();
    }

    fn purge(&mut self) {
        // One that is under way is enough: nothing was queued since it began.
        if self.purging.is_none() {
            self.purging = Some(self.sender.purge());
        }
    }

    /// Waits until the producer has nothing left of what was given up; not for long at a time, as the leases have to be
    /// looked at.
    async fn purged(&mut self) {
        if let Some(purging) = &mut self.purging
            && timeout(POLL_INTERVAL_ALONE, purging).await.is_ok()
        {
            self.purging = None;
        }
    }

    /// Returns whether something waits that could be sent now.
    fn has_ready(&self) -> bool {
        self.purging.is_none() && self.flow.has_ready(Instant::now())
    }

    /// Makes the producer anew if it can never send again, and gives the leases up for as long as another relay needs
    /// to take them. If no other can be made it tries again after that.
    fn replace_broken_producer(&mut self) {
        let Some(reason) = self.sender.fatal_error() else { return };
        let now = Instant::now();
        if self.broken_until.is_some_and(|until| now < until) {
            return;
        }
        let is_told = self.told_broken.is_some_and(|told| now.duration_since(told) < TELL_BROKEN);
        if !is_told {
            tracing::error!(messaging.topic = %self.topic, error.cause = reason, "the Kafka producer is broken for good, making another");
        }
        match self.sender.replace() {
            Ok(()) => self.told_broken = None,
            Err(_) if is_told => {}
            Err(error) => {
                tracing::error!(messaging.topic = %self.topic, error.cause = %error, "no Kafka producer can be made, trying again");
                self.told_broken = Some(now);
            }
        }
        self.start_over();
        self.broken_until = Some(now + lease::TERM);
    }

    /// Forgets everything, so that it is read again from the floors.
    fn start_over(&mut self) {
        if self.flow.in_flight() > 0 {
            self.purge();
        }
        // Nobody hears what becomes of those on their way: their tickets are given anew.
        self.flights.clear();
        self.flow = Flow::new(self.partitions);
        (self.reading, self.held) = (Reading::default(), None);
    }

    /// Looks at the leases, and leaves what is held no more.
    fn follow(&mut self) {
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
        self.lose(&lost);
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

    fn lose(&mut self, lost: &[u16]) {
        if self.flow.has_in_flight(|partition| lost.contains(&partition)) {
            tracing::warn!(messaging.topic = %self.topic, outbox.partitions = lost.len(), "leases were lost with messages on their way; the next holder sends them");
            // The producer does not know partitions of the outbox: all is given up, and what is still held sent again.
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
        let read = db.in_time("read_outbox", Box::pin(self.read(&mut conn)));
        // What is read after the leases have run out is of no use.
        let read = timeout_at(until, read).await.unwrap_or(Err(DbError::BrokenOff("read_outbox")))?;
        self.session.keep(conn);
        let Some((answer, drawn)) = read else { return Ok(Round::default()) };
        let read = answer.next.len() + drawn.len();
        let has_more = answer.next.len() >= ROUND as usize || answer.filled.len() >= FILLED as usize;
        let is_behind = has_more || self.held.is_some();
        let has_drawn_all_it_may = drawn.len() >= AGAIN;
        for row in self.note(answer, drawn) {
            self.send(&row);
        }
        // Not if the producer has just refused them for want of room.
        Ok(Round { read, is_full: is_behind || (has_drawn_all_it_may && self.has_ready()) })
    }

    /// Takes note of what was read. Returns what is to be sent, in the order of ids.
    fn note(&mut self, answer: Answer, drawn: Vec<Item>) -> Vec<Row> {
        let now = Instant::now();
        let mut gone: HashMap<u64, Item> = drawn.into_iter().map(|item| (item.id, item)).collect();
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
            // The next look at the leases says whether it is still to be sent by this relay.
            self.flow.wait(item);
        } else if self.flow.admits(item, now) {
            match self.sender.enqueue(row, slot) {
                Ok(delivery) => self.flights.push(Flight { ticket: self.flow.queued(item), delivery }),
                Err(Unqueued::Full) => self.flow.full(item, now),
                Err(Unqueued::Refused) => self.refused(item),
            }
        }
    }

    /// Leaves a report, and measures.
    fn tell(&mut self) {
        let floors = self.reading.floors();
        let is_idle = self.purging.is_none();
        let is_drained = |partition: &u16| is_idle && !self.flow.has_in_flight(|of| of == *partition);
        let drained = self.leaving().filter(is_drained).collect();
        let (generation, broken_until) = (self.seen.generation, self.broken_until);
        self.desk.leave(Report { generation, floors, drained, broken_until });
        // Without a partition nothing is known of what waits, and nothing of it is sent, unless others do that.
        let (reading, others_send) = (&self.reading, self.others_send);
        let is_known = others_send || !reading.lanes().is_empty();
        self.meters.measure(|| is_known.then(|| reading.unsent()));
    }
}
