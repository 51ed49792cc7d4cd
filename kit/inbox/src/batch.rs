//! Applies one batch, each piece of it in one transaction: waits while the server is at fault, and finds the message
//! that is at fault itself by halving.

use crate::{
    Handler, Message,
    client::Client,
    failure::Failure,
    letter::{Kind, Letter, Outcome},
    letters::{AT_A_TIME, Letters},
    loud::{Loud, Telling},
    message::Unreadable,
    positions::Positions,
    progress::Progress,
    rows::{self, Aside},
    trace,
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, Database, DbError, Place, Statements};
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
/// Attempts of one message before it is set aside: what it is refused for may be half of a change under way.
const ATTEMPTS: u32 = 5;
/// Shortest and longest wait while the server is at fault. Whoever is put out of the group meanwhile finds out after it,
/// and no rebalance of the others ends before.
const WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// Shortest and longest wait before a message that this release cannot apply is left to whoever gets its partition.
const LEFT_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How long after that the next one is not one of the same.
const ONE_ROLL_OUT: Duration = Duration::from_secs(60);
/// Time-outs in a row before the pieces get smaller: the first may be a server that stood still.
const TIME_OUTS: u32 = 2;

/// Why a batch was given up. It is read again, so nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum Unapplied {
    /// The consumer is to stop.
    #[error("stopped before the batch was applied")]
    Stopped,
    /// Another consumer has a partition of it.
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
    limit: usize,
    /// Failures in a row of the server, those of them that were time-outs, and those of one message.
    failures: u32,
    time_outs: u32,
    faults: u32,
    loud: Loud,
    newer: Newer,
}

/// What only a newer release can apply.
#[derive(Default)]
struct Newer {
    /// The messages of the batch under way, and those behind one of them.
    messages: Piece,
    /// How often in a row such were left, and when the last time.
    left: Option<(u32, Instant)>,
    loud: Loud,
}

/// A piece that is still to be applied, or what is left of it.
type Piece = Vec<Message>;

impl<H: Handler> Applier<H> {
    /// Applies what `client` reads, until `stop`.
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
            limit: BATCH,
            failures: 0,
            time_outs: 0,
            faults: 0,
            loud: Loud::default(),
            newer: Newer::default(),
        }
    }

    /// Returns how many messages are worth reading at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Applies the batch, whose records are up to these positions, and lets the client commit what is done. Returns
    /// once every message of it is applied or is a dead letter. What only a newer release can apply it leaves to others,
    /// once all the rest is done.
    pub async fn apply(&mut self, batch: Vec<Message>, positions: &Positions) -> Result<(), Unapplied> {
        // The next one is the last.
        let mut pieces = vec![without_repeats(batch)];
        self.newer.messages.clear();
        while let Some(piece) = pieces.pop() {
            if piece.is_empty() {
                continue;
            }
            let left = self.step(piece).await?;
            pieces.extend(left);
            take_behind(&mut self.newer.messages, &mut pieces);
            if let Some(next) = pieces.last() {
                // All of it together may take longer than the consumer keeps its partitions.
                self.client.store(&positions.without(pieces.iter().flatten().chain(&self.newer.messages)));
                self.still_owns(next)?;
            }
        }
        let newer = std::mem::take(&mut self.newer.messages);
        self.client.store(&positions.without(newer.iter()));
        if newer.is_empty() { Ok(()) } else { self.leave().await }
    }

    /// Gives the batch up after a while, longer each time: this consumer may get the partition again.
    async fn leave(&mut self) -> Result<(), Unapplied> {
        let times = self.newer.times_left();
        self.newer.left = Some((times.saturating_add(1), Instant::now()));
        let (shortest, longest) = LEFT_AFTER;
        self.pause(backoff_within(shortest, longest, times)).await?;
        Err(Unapplied::Newer)
    }

    /// Tries one piece. Returns what is left of it, the part to be tried next at the end.
    async fn step(&mut self, mut piece: Piece) -> Result<Vec<Piece>, Unapplied> {
        if piece.len() > self.limit {
            let behind = piece.split_off(self.limit);
            return Ok(vec![behind, piece]);
        }
        let piece = Arc::new(piece);
        let outcome = self.attempt(&piece).await;
        let mut piece = Arc::unwrap_or_clone(piece);
        match outcome {
            Ok(effects) => {
                // Before the offsets are stored: a stop waits for it, only a crash can lose it.
                self.handler.committed(effects).await;
                self.succeeds();
                Ok(Vec::new())
            }
            Err(Failure::Aside(aside)) => self.leave_out(piece, aside).await,
            Err(Failure::Poison { index, .. }) if has_earlier_of_its_key(&piece, index) => {
                // They take effect before there is a letter: whoever replays it may be quick, and nothing overtakes.
                let behind = piece.split_off(index);
                Ok(vec![behind, piece])
            }
            Err(Failure::Poison { index, why }) => self.set_aside(piece, &[index], Kind::Poison, &why).await,
            Err(Failure::Db(error)) if error.is_of_data() => self.isolate(piece, &error).await,
            Err(Failure::Db(error)) => {
                if matches!(error, DbError::TimedOut { .. }) {
                    self.shrink(piece.len());
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
        // Open until here, so that each span lasts as long as the transaction with its commit.
        drop(spans);
        outcome
    }

    /// Grows slowly towards a whole batch again, so that a slow server does not time out at every other piece.
    fn succeeds(&mut self) {
        self.moves();
        self.limit = (self.limit + self.limit / 4 + 1).min(BATCH);
        (self.time_outs, self.faults) = (0, 0);
    }

    fn moves(&mut self) {
        self.progress.moves();
        self.loud.passes();
        self.failures = 0;
    }

    fn shrink(&mut self, tried: usize) {
        self.time_outs += 1;
        if self.time_outs >= TIME_OUTS {
            self.limit = (tried / 2).max(1);
            self.time_outs = 0;
        }
    }

    /// Halves a piece that something in it makes fail: of two halves the first one goes on, in the order of the messages.
    async fn isolate(&mut self, mut piece: Piece, error: &DbError) -> Result<Vec<Piece>, Unapplied> {
        if piece.len() > 1 {
            tracing::warn!(error.cause = %error, inbox.batch = piece.len(), "a batch fails for what is in it, trying its halves");
            let behind = piece.split_off(piece.len() / 2);
            return Ok(vec![behind, piece]);
        }
        if matches!(error, DbError::Newer(_)) {
            self.newer.tell(&piece[0], error);
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

    /// Takes out what is a letter already, and makes letters of what is behind one.
    async fn leave_out(&mut self, piece: Piece, aside: Aside) -> Result<Vec<Piece>, Unapplied> {
        if aside.letters.is_empty() {
            let why = "behind a dead letter of the same key";
            return self.set_aside(piece, &aside.parked, Kind::Parked, why).await;
        }
        Ok(vec![without(piece, &aside.letters.into_iter().collect())])
    }

    /// Makes letters of these messages of the piece. Returns the others, and those that are to be applied after all.
    async fn set_aside(
        &mut self,
        piece: Piece,
        indices: &[usize],
        kind: Kind,
        why: &str,
    ) -> Result<Vec<Piece>, Unapplied> {
        let mut gone = BTreeSet::new();
        for indices in indices.chunks(AT_A_TIME) {
            let letters = indices.iter().map(|index| Letter::of(&piece[*index], kind, why)).collect();
            let outcomes = self.write(letters).await?;
            let written = indices.iter().zip(outcomes).filter(|(_, outcome)| *outcome != Outcome::NotParked);
            gone.extend(written.map(|(index, _)| *index));
        }
        Ok(vec![without(piece, &gone)])
    }

    /// Makes letters of records that are no messages of ours.
    pub async fn set_aside_unreadable(&mut self, records: &[Unreadable]) -> Result<(), Unapplied> {
        for records in records.chunks(AT_A_TIME) {
            self.write(records.iter().map(Letter::from).collect()).await?;
        }
        Ok(())
    }

    /// Writes letters, however long the server is at fault: fewer at a time after one time-out. Gives up if their
    /// partitions were given to another consumer, which may have applied them.
    async fn write(&mut self, letters: Vec<Letter>) -> Result<Vec<Outcome>, Unapplied> {
        let (mut outcomes, mut at_a_time) = (Vec::with_capacity(letters.len()), letters.len());
        while outcomes.len() < letters.len() {
            let left = &letters[outcomes.len()..];
            let letters = Arc::new(left[..at_a_time.min(left.len())].to_vec());
            let places: HashSet<_> = letters.iter().map(|letter| (&letter.topic, letter.partition)).collect();
            if places.iter().any(|(topic, partition)| !self.client.owns(topic, *partition)) {
                return Err(Unapplied::Lost);
            }
            match self.letters.set_aside(&letters).await {
                Ok(written) => {
                    self.moves();
                    outcomes.extend(written);
                }
                Err(error) => {
                    if matches!(error, DbError::TimedOut { .. }) {
                        at_a_time = (letters.len() / 2).max(1);
                    }
                    let first = &letters[0];
                    self.tell((&first.topic, first.partition, first.offset), &error);
                    self.wait_longer().await?;
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

    /// Waits, since the server is at fault: nothing is set aside for that, however long it lasts.
    async fn wait(&mut self, first: &Message, error: &DbError) -> Result<(), Unapplied> {
        self.tell((&first.topic, first.partition, first.offset), error);
        self.wait_longer().await
    }

    fn tell(&mut self, (topic, partition, offset): (&str, i32, i64), error: &DbError) {
        match self.loud.fails() {
            Telling::Begun => tracing::warn!(
                messaging.topic = topic,
                messaging.partition = partition,
                messaging.offset = offset,
                error.cause = %error,
                "messages cannot be applied now, trying again"
            ),
            Telling::Lasts(time) => tracing::error!(
                messaging.topic = topic,
                messaging.partition = partition,
                messaging.offset = offset,
                inbox.stands_s = time.as_secs(),
                error.cause = %error,
                "the consumer stands still: messages cannot be applied, trying again"
            ),
            Telling::Silent => {}
        }
    }

    async fn wait_longer(&mut self) -> Result<(), Unapplied> {
        let (shortest, longest) = WAITS;
        let time = backoff_within(shortest, longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.pause(time).await
    }

    /// Waits; cut short by `stop`.
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
            Some((times, at)) if at.elapsed() < ONE_ROLL_OUT => times,
            _ => 0,
        }
    }

    fn tell(&mut self, message: &Message, error: &DbError) {
        if self.times_left() == 0 {
            self.loud.passes();
        }
        if self.loud.fails() != Telling::Silent {
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

/// Takes what has the key of one of these messages out of the pieces, of which the last comes first: nothing overtakes
/// what is left to others.
fn take_behind(messages: &mut Piece, pieces: &mut [Piece]) {
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

/// Each message of the batch once: the relay sends some again.
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
