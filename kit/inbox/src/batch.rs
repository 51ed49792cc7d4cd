//! Applies one batch, each piece of it in one transaction. Retries while the database fails, and finds a poison message
//! by bisection.

use crate::{
    Handler, Message,
    client::Client,
    failure::Failure,
    letter::{Kind, Letter, Outcome},
    letters::{LETTERS_PER_TRANSACTION, Letters},
    log_throttle::{LogEvent, LogThrottle},
    message::Unreadable,
    positions::Positions,
    progress::Progress,
    rows::{self, Aside},
    trace,
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, BatchLimit, Database, DbError, Place, Statements};
use stampede_vocab::{backoff, backoff_within};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most messages of one transaction.
pub const BATCH: usize = 500;
/// Attempts of one message before it becomes a dead letter: it may be refused for a change that is only half done.
const ATTEMPTS: u32 = 5;
/// Shortest and longest back-off while the database fails. It bounds how late a consumer notices that it has lost its
/// partitions, and how long a rebalance waits for it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// Shortest and longest back-off before the partition of a message that only a newer release can apply is given up.
const NEWER_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A later message of a newer release belongs to another rollout, with a back-off of its own.
const SAME_ROLLOUT: Duration = Duration::from_secs(60);
/// Consecutive time-outs before pieces get smaller: the first may be a server that was frozen for a moment.
const MAX_TIMEOUTS: u32 = 2;

/// Why a batch was abandoned. It is read again, so nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum Unapplied {
    /// The consumer stops.
    #[error("stopped before the batch was applied")]
    Stopped,
    /// A partition of it was assigned to another consumer.
    #[error("a partition of the batch was given to another consumer")]
    Lost,
    /// All that this release can apply of it is applied.
    #[error("a message of the batch is left to a replica of a newer release")]
    Newer,
}

/// Applies batches of one consumer.
pub struct Applier<H> {
    db: Database,
    handler: Arc<H>,
    letters: Letters,
    client: Arc<Client>,
    progress: Progress,
    stop: CancellationToken,
    /// Most messages of a piece: less than a batch after time-outs, until the server is faster again.
    limit: BatchLimit,
    /// Consecutive failures of the database, consecutive time-outs among them, and failed attempts of one message.
    failures: u32,
    timeouts: u32,
    faults: u32,
    throttle: LogThrottle,
    newer: Newer,
}

/// Messages that only a newer release can apply.
#[derive(Default)]
struct Newer {
    /// Those of the batch under way, and later messages of their keys.
    messages: Piece,
    /// How many batches in a row were abandoned for such messages, and when the last one was.
    left: Option<(u32, Instant)>,
    throttle: LogThrottle,
}

/// A part of a batch that is still to be applied, in one transaction.
type Piece = Vec<Message>;

impl<H: Handler> Applier<H> {
    /// Returns the applier of the batches of `client`, which retries until `stop`.
    pub fn new(
        db: Database,
        handler: Arc<H>,
        letters: Letters,
        (client, progress): (Arc<Client>, Progress),
        stop: CancellationToken,
    ) -> Self {
        Self {
            db,
            handler,
            letters,
            client,
            progress,
            stop,
            limit: BatchLimit::up_to(BATCH),
            failures: 0,
            timeouts: 0,
            faults: 0,
            throttle: LogThrottle::default(),
            newer: Newer::default(),
        }
    }

    /// Returns how many messages are worth reading at a time.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Applies the batch and stores its offsets as it goes on, up to these positions. Returns once every message is
    /// applied or is a dead letter. Abandons the batch for messages that only a newer release can apply, once all
    /// others are done.
    pub async fn apply(&mut self, batch: Vec<Message>, positions: &Positions) -> Result<(), Unapplied> {
        // A stack: the next piece is at the end.
        let mut pieces = vec![without_repeats(batch)];
        self.newer.messages.clear();
        while let Some(piece) = pieces.pop() {
            if piece.is_empty() {
                continue;
            }
            let left = self.step(piece).await?;
            pieces.extend(left);
            take_later_of_same_key(&mut self.newer.messages, &mut pieces);
            if let Some(next) = pieces.last() {
                // Checked for each piece: the whole batch may take longer than the consumer keeps its partitions.
                self.client.store(&positions.without(pieces.iter().flatten().chain(&self.newer.messages)));
                self.still_owns(next)?;
            }
        }
        let newer = std::mem::take(&mut self.newer.messages);
        self.client.store(&positions.without(newer.iter()));
        if newer.is_empty() { Ok(()) } else { self.leave_to_newer().await }
    }

    /// Abandons the batch after a back-off: this consumer may be assigned the partition again.
    async fn leave_to_newer(&mut self) -> Result<(), Unapplied> {
        let times = self.newer.times_left();
        self.newer.left = Some((times.saturating_add(1), Instant::now()));
        let (shortest, longest) = NEWER_BACKOFF;
        self.pause(backoff_within(shortest, longest, times)).await?;
        Err(Unapplied::Newer)
    }

    /// Tries one piece. Returns what is left of it, the next part at the end.
    async fn step(&mut self, mut piece: Piece) -> Result<Vec<Piece>, Unapplied> {
        let limit = self.limit();
        if piece.len() > limit {
            let behind = piece.split_off(limit);
            return Ok(vec![behind, piece]);
        }
        let piece = Arc::new(piece);
        let outcome = self.attempt(&piece).await;
        let mut piece = Arc::unwrap_or_clone(piece);
        match outcome {
            Ok(effects) => {
                // Before the offsets are stored, so that only a crash loses the effects.
                self.handler.committed(effects).await;
                self.succeeded(piece.len());
                Ok(Vec::new())
            }
            Err(Failure::Aside(aside)) => self.leave_out(piece, aside).await,
            Err(Failure::Poison { index, .. }) if has_earlier_of_its_key(&piece, index) => {
                // Earlier messages of the key are applied before the letter is written: a replay must not overtake
                // them.
                let behind = piece.split_off(index);
                Ok(vec![behind, piece])
            }
            Err(Failure::Poison { index, why }) => self.set_aside(piece, &[index], Kind::Poison, &why).await,
            Err(Failure::Db(error)) if error.is_of_data() => self.isolate(piece, &error).await,
            Err(Failure::Db(error)) => {
                if matches!(error, DbError::TimedOut { .. }) {
                    self.timed_out(piece.len(), &error);
                }
                self.wait(&piece[0], &error).await?;
                self.still_owns(&piece)?;
                Ok(vec![piece])
            }
        }
    }

    /// Applies the piece in one transaction.
    async fn attempt(&self, piece: &Arc<Piece>) -> Result<H::Effects, Failure> {
        let (handler, piece) = (self.handler.clone(), piece.clone());
        let spans = trace::spans(&piece);
        let mut opening = Statements::new();
        let any = rows::push_any(&mut opening);
        let applied = self.db.transact_after("apply_messages", opening, move |conn, read| {
            let (handler, piece) = (handler.clone(), piece.clone());
            Box::pin(async move { apply_in(conn, (&read, any), &*handler, &piece).await })
        });
        let outcome = applied.await;
        // Open until here, so that each span includes the commit.
        drop(spans);
        outcome
    }

    fn succeeded(&mut self, tried: usize) {
        self.progressed();
        self.limit.succeeded(tried);
        (self.timeouts, self.faults) = (0, 0);
    }

    fn progressed(&mut self) {
        self.progress.progressed();
        self.throttle.recovered();
        self.failures = 0;
    }

    fn timed_out(&mut self, tried: usize, error: &DbError) {
        self.timeouts += 1;
        if self.timeouts >= MAX_TIMEOUTS {
            self.limit.failed(tried, error);
            self.timeouts = 0;
        }
    }

    /// Bisects a piece that fails because of a message in it. The first half is tried first, to keep the order.
    async fn isolate(&mut self, mut piece: Piece, error: &DbError) -> Result<Vec<Piece>, Unapplied> {
        if piece.len() > 1 {
            tracing::warn!(error.cause = %error, message.count = piece.len(), "a batch fails for what is in it, trying its halves");
            let behind = piece.split_off(piece.len() / 2);
            return Ok(vec![behind, piece]);
        }
        if matches!(error, DbError::Newer(_)) {
            self.newer.log(&piece[0], error);
            self.newer.messages.extend(piece);
            return Ok(Vec::new());
        }
        self.faults += 1;
        if self.faults < ATTEMPTS {
            tracing::warn!(error.cause = %error, inbox.attempt = self.faults, "a message was not applied, trying again");
            self.pause(backoff(self.faults)).await?;
            return Ok(vec![piece]);
        }
        self.faults = 0;
        self.set_aside(piece, &[0], Kind::Poison, &error.to_string()).await
    }

    /// Drops messages that are dead letters already, and sets those of parked keys aside.
    async fn leave_out(&mut self, piece: Piece, aside: Aside) -> Result<Vec<Piece>, Unapplied> {
        if aside.letters.is_empty() {
            let why = "behind a dead letter of the same key";
            return self.set_aside(piece, &aside.parked, Kind::Parked, why).await;
        }
        Ok(vec![without(piece, &aside.letters.into_iter().collect())])
    }

    /// Turns these messages of the piece into dead letters. Returns the others, and those whose key is not parked any
    /// more.
    async fn set_aside(
        &mut self,
        piece: Piece,
        indices: &[usize],
        kind: Kind,
        why: &str,
    ) -> Result<Vec<Piece>, Unapplied> {
        let mut gone = BTreeSet::new();
        for indices in indices.chunks(LETTERS_PER_TRANSACTION) {
            let letters = indices.iter().map(|index| Letter::of(&piece[*index], kind, why)).collect();
            let outcomes = self.write(letters).await?;
            let written = indices.iter().zip(outcomes).filter(|(_, outcome)| *outcome != Outcome::NotParked);
            gone.extend(written.map(|(index, _)| *index));
        }
        Ok(vec![without(piece, &gone)])
    }

    /// Turns records that are no messages of ours into dead letters.
    pub async fn set_aside_unreadable(&mut self, records: &[Unreadable]) -> Result<(), Unapplied> {
        for records in records.chunks(LETTERS_PER_TRANSACTION) {
            self.write(records.iter().map(Letter::from).collect()).await?;
        }
        Ok(())
    }

    /// Writes letters, and retries as long as the database fails, with smaller batches after a time-out. Fails once a
    /// partition of them was assigned to another consumer, which may have applied them.
    async fn write(&mut self, letters: Vec<Letter>) -> Result<Vec<Outcome>, Unapplied> {
        let (mut outcomes, mut batch_size) = (Vec::with_capacity(letters.len()), letters.len());
        while outcomes.len() < letters.len() {
            let left = &letters[outcomes.len()..];
            let letters = Arc::new(left[..batch_size.min(left.len())].to_vec());
            let places: HashSet<_> = letters.iter().map(|letter| (&letter.topic, letter.partition)).collect();
            if places.iter().any(|(topic, partition)| !self.client.owns(topic, *partition)) {
                return Err(Unapplied::Lost);
            }
            match self.letters.set_aside(&letters).await {
                Ok(written) => {
                    self.progressed();
                    outcomes.extend(written);
                }
                Err(error) => {
                    if matches!(error, DbError::TimedOut { .. }) {
                        batch_size = (letters.len() / 2).max(1);
                    }
                    let first = &letters[0];
                    self.log((&first.topic, first.partition, first.offset), &error);
                    self.back_off().await?;
                }
            }
        }
        Ok(outcomes)
    }

    fn still_owns(&self, piece: &[Message]) -> Result<(), Unapplied> {
        let places: HashSet<_> = piece.iter().map(|message| (&message.topic, message.partition)).collect();
        let owns_all = places.iter().all(|(topic, partition)| self.client.owns(topic, *partition));
        if owns_all { Ok(()) } else { Err(Unapplied::Lost) }
    }

    /// Backs off while the database fails. No message becomes a dead letter for that, however long it lasts.
    async fn wait(&mut self, first: &Message, error: &DbError) -> Result<(), Unapplied> {
        self.log((&first.topic, first.partition, first.offset), error);
        self.back_off().await
    }

    fn log(&mut self, (topic, partition, offset): (&str, i32, i64), error: &DbError) {
        match self.throttle.failure() {
            LogEvent::Started => tracing::warn!(
                messaging.topic = topic,
                messaging.partition = partition,
                messaging.offset = offset,
                error.cause = %error,
                "messages cannot be applied now, trying again"
            ),
            LogEvent::Ongoing(time) => tracing::error!(
                messaging.topic = topic,
                messaging.partition = partition,
                messaging.offset = offset,
                inbox.stands_s = time.as_secs(),
                error.cause = %error,
                "the consumer is stalled: messages cannot be applied, trying again"
            ),
            LogEvent::Suppressed => {}
        }
    }

    async fn back_off(&mut self) -> Result<(), Unapplied> {
        let (shortest, longest) = BACKOFF;
        let time = backoff_within(shortest, longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.pause(time).await
    }

    /// Sleeps. Fails once `stop` is cancelled.
    async fn pause(&self, time: Duration) -> Result<(), Unapplied> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Unapplied::Stopped),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }
}

impl Newer {
    fn times_left(&self) -> u32 {
        match self.left {
            Some((times, at)) if at.elapsed() < SAME_ROLLOUT => times,
            _ => 0,
        }
    }

    fn log(&mut self, message: &Message, error: &DbError) {
        if self.times_left() == 0 {
            self.throttle.recovered();
        }
        if self.throttle.failure() != LogEvent::Suppressed {
            tracing::error!(
                messaging.topic = %message.topic,
                messaging.partition = message.partition,
                messaging.offset = message.offset,
                error.cause = %error,
                "a message waits for a replica of a newer release, and its key with it"
            );
        }
    }
}

/// Moves later messages of the same keys from the pieces to these messages, in order: no message of a key overtakes
/// another.
fn take_later_of_same_key(messages: &mut Piece, pieces: &mut [Piece]) {
    let keys: HashSet<_> = messages.iter().map(|message| (message.topic.clone(), message.key.clone())).collect();
    if keys.is_empty() {
        return;
    }
    for piece in pieces.iter_mut().rev() {
        let is_behind = |message: &Message| keys.contains(&(message.topic.clone(), message.key.clone()));
        let (behind, others): (Piece, Piece) = std::mem::take(piece).into_iter().partition(is_behind);
        *piece = others;
        messages.extend(behind);
    }
}

async fn apply_in<H: Handler>(
    conn: &mut MySqlConnection,
    (read, any): (&Answers, Place),
    handler: &H,
    piece: &[Message],
) -> Result<H::Effects, Failure> {
    let aside = rows::aside(conn, read, any, piece).await?;
    if aside != Aside::default() {
        return Err(Failure::Aside(aside));
    }
    handler.apply(conn, piece).await.map_err(|error| Failure::of_handler(error, piece.len()))
}

/// Drops duplicates within the batch: the relay delivers at least once.
fn without_repeats(batch: Vec<Message>) -> Piece {
    let mut seen = HashSet::new();
    batch.into_iter().filter(|message| seen.insert((message.source.clone(), message.id.clone()))).collect()
}

fn has_earlier_of_its_key(piece: &[Message], index: usize) -> bool {
    let (earlier, message) = (&piece[..index], &piece[index]);
    earlier.iter().any(|other| (&other.topic, &other.key) == (&message.topic, &message.key))
}

fn without(piece: Piece, gone: &BTreeSet<usize>) -> Piece {
    let kept = piece.into_iter().enumerate().filter(|(index, _)| !gone.contains(index));
    kept.map(|(_, message)| message).collect()
}
