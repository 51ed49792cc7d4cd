//! Replays dead letters that an operator has decided to replay, unparks keys without open letters, and sends copies to
//! Kafka.

use crate::{
    Handler,
    copies::Copies,
    failure::Failure,
    letter::{self, Stored},
    log_throttle::{LogEvent, LogThrottle},
    rows,
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_kafka::Undelivered;
use stampede_vocab::{Timestamp, backoff_within};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Poll interval. A poll costs one statement.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Most keys or letters of one round.
const PAGE_SIZE: u32 = 100;
/// Longest time for the keys of one round. The next round continues after them.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Term of a claim on letters whose copies are sent, less up to half. Longer than a usual round.
const CLAIM_TERM: Duration = Duration::from_secs(30);
/// Shortest and longest back-off of a key whose replay has failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The worker that handles the dead letters of one consumer.
pub struct Replay<H> {
    db: Database,
    handler: Arc<H>,
    copies: Copies,
    /// Wakes it when there are new letters.
    written: Arc<Notify>,
    failing: Failing,
    /// Page cursors: the last key that was replayed, the last that was unparked, and the last letter that was copied.
    /// So failing first ones do not starve the others.
    replayed: Key,
    unparked: Key,
    copied: i64,
}

/// Keys whose replay has failed for a transient reason: how often, and when they are retried.
#[derive(Debug, Default)]
struct Failing(HashMap<Key, (u32, Instant)>);

impl Failing {
    fn waits(&self, key: &Key) -> bool {
        self.0.get(key).is_some_and(|(_, until)| Instant::now() < *until)
    }

    fn failed(&mut self, key: Key) {
        let now = Instant::now();
        let (shortest, longest) = BACKOFF;
        // Another replica may have replayed a key that is overdue.
        self.0.retain(|_, (_, until)| now < *until + longest);
        let (failures, until) = self.0.entry(key).or_insert((0, now));
        *until = now + backoff_within(shortest, longest, *failures);
        *failures += 1;
    }

    fn succeeded(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a copy was not taken by Kafka: {0}")]
    Copy(#[from] Undelivered),
}

/// The outcome of one step in the replay of a key.
enum Step<E> {
    /// A letter was applied, with these effects.
    Applied(E),
    /// A letter was skipped: the same message was discarded.
    Skipped,
    /// None was to be replayed.
    None,
}

/// A key with its topic.
type Key = (String, String);

impl<H: Handler> Replay<H> {
    /// For the consumer with this handler.
    pub fn new(db: Database, handler: Arc<H>, copies: Copies, written: Arc<Notify>) -> Self {
        let (failing, replayed, unparked) = (Failing::default(), Key::default(), Key::default());
        Self { db, handler, copies, written, failing, replayed, unparked, copied: 0 }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut throttle = LogThrottle::default();
        loop {
            tokio::select! {
                () = self.written.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match self.round().await {
                // A key in back-off has not recovered.
                Ok(()) if !self.failing.0.is_empty() => {}
                Ok(()) => throttle.recovered(),
                Err(error) => log_failure(&mut throttle, &error),
            }
        }
    }

    /// Does all work that is due. A part that fails does not stop the others.
    async fn round(&mut self) -> Result<(), RoundError> {
        let due = self.db.run("dead_letters_due", |mut conn| async move { letter::due(&mut conn).await }).await?;
        if due.replay == 0 {
            self.failing = Failing::default();
        }
        let replayed = if due.replay != 0 { self.replay().await } else { Ok(()) };
        let unparked = if due.parked != 0 { self.unpark_settled().await } else { Ok(()) };
        let copied = if due.copy != 0 { self.copy().await } else { Ok(()) };
        replayed?;
        unparked?;
        copied
    }

    /// Replays one page of keys. Returns the first failure.
    async fn replay(&mut self) -> Result<(), DbError> {
        let behind = self.replayed.clone();
        let keys = self.db.run("letters_to_replay", |mut conn| async move {
            letter::refuse_unreadable(&mut conn).await?;
            letter::to_replay(&mut conn, &behind, PAGE_SIZE).await
        });
        let keys = keys.await?;
        let (is_last, started) = (keys.len() < PAGE_SIZE as usize, Instant::now());
        let mut outcome: Result<(), DbError> = Ok(());
        for key in keys {
            if started.elapsed() >= PAGE_TIMEOUT {
                return outcome;
            }
            self.replayed.clone_from(&key);
            if self.failing.waits(&key) {
                continue;
            }
            match self.replay_key(Arc::new(key.clone())).await {
                Ok(()) => self.failing.succeeded(&key),
                Err(error) => {
                    self.failing.failed(key);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        if is_last {
            self.replayed = Key::default();
        }
        outcome
    }

    /// Applies the letters of the key in order, until one fails or none is left.
    async fn replay_key(&self, key: Arc<Key>) -> Result<(), DbError> {
        loop {
            let tried = Arc::new(AtomicI64::new(0));
            let outcome = self.replay_first(key.clone(), tried.clone()).await;
            let tried = tried.load(Ordering::Relaxed);
            match outcome {
                Ok(Step::Applied(effects)) => self.handler.committed(effects).await,
                Ok(Step::Skipped) => {}
                Ok(Step::None) => return Ok(()),
                Err(failure) if failure.is_reproducible() => return self.not_replayed(key, tried, &failure).await,
                Err(Failure::Db(error)) => {
                    self.note_retry(tried, &error).await;
                    return Err(error);
                }
                Err(failure) => return Err(DbError::inconsistent(failure.to_string())),
            }
        }
    }

    /// Applies the first open letter of the key, if it is to be replayed, and stores its id in `tried`. Locks the park
    /// of the key, so that new messages of it wait.
    async fn replay_first(&self, key: Arc<Key>, tried: Arc<AtomicI64>) -> Result<Step<H::Effects>, Failure> {
        let handler = self.handler.clone();
        let replayed = self.db.transact_with("replay_message", move |conn| {
            let (handler, key, tried) = (handler.clone(), key.clone(), tried.clone());
            Box::pin(async move { replay_in(conn, &*handler, &key, &tried).await })
        });
        replayed.await
    }

    /// Notes why the replay of a letter is retried, if the database accepts that.
    async fn note_retry(&self, id: i64, error: &DbError) {
        let why = error.to_string();
        let noted = self
            .db
            .run("letter_hindered", |mut conn| async move { letter::note_retry(&mut conn, id, &why).await })
            .await;
        if let Err(error) = noted {
            tracing::debug!(error.cause = %error, "why a dead letter could not be replayed now was not noted");
        }
    }

    /// Notes that the letter of this id cannot be applied, if it is still the next one to be replayed: another replica
    /// or an operator may have been faster.
    async fn not_replayed(&self, key: Arc<Key>, id: i64, failure: &Failure) -> Result<(), DbError> {
        let why = failure.to_string();
        tracing::error!(messaging.topic = %key.0, messaging.key = %key.1, letter.id = id, error.cause = %why, "dead letter could not be replayed, it waits for another decision");
        let noted = self.db.transact("letter_not_replayed", move |conn| {
            let (key, why) = (key.clone(), why.clone());
            Box::pin(async move {
                let (topic, name) = &*key;
                rows::lock_park(conn, topic, name).await?;
                match letter::first_open(conn, topic, name).await? {
                    Some(first) if first.id == id && first.is_to_be_replayed() => {
                        letter::not_replayed(conn, id, (topic, name), &why).await
                    }
                    _ => Ok(()),
                }
            })
        });
        noted.await
    }

    /// Unparks one page of keys whose letters were all discarded. Returns the first failure.
    async fn unpark_settled(&mut self) -> Result<(), DbError> {
        let behind = self.unparked.clone();
        let keys = self
            .db
            .run("settled_keys", |mut conn| async move { rows::settled(&mut conn, &behind, PAGE_SIZE).await })
            .await?;
        let (is_last, started) = (keys.len() < PAGE_SIZE as usize, Instant::now());
        let mut outcome: Result<(), DbError> = Ok(());
        for key in keys {
            if started.elapsed() >= PAGE_TIMEOUT {
                return outcome;
            }
            self.unparked.clone_from(&key);
            let key = Arc::new(key);
            let unparked = self.db.transact("unpark_key", move |conn| {
                let key = key.clone();
                Box::pin(async move {
                    let (topic, name) = &*key;
                    if rows::lock_park(conn, topic, name).await? {
                        letter::unpark_if_settled(conn, topic, name).await?;
                    }
                    Ok(())
                })
            });
            outcome = outcome.and(unparked.await);
        }
        if is_last {
            self.unparked = Key::default();
        }
        outcome
    }

    /// Sends one page of missing copies. Returns the first failure. A copy is sent twice after a crash before it is
    /// noted, or in a round that takes longer than its claim.
    async fn copy(&mut self) -> Result<(), RoundError> {
        let (behind, now) = (self.copied, Timestamp::now());
        let until_us = now.plus(backoff_within(CLAIM_TERM, CLAIM_TERM, 0)).micros();
        let times_us = (now.micros(), until_us);
        let letters: Vec<Stored> = self
            .db
            .run("uncopied_letters", |mut conn| async move {
                letter::claim_uncopied(&mut conn, behind, times_us, PAGE_SIZE).await
            })
            .await?;
        let copied = self.copy_claimed(letters).await;
        if copied.is_err() {
            let released = self
                .db
                .run("release_letters", |mut conn| async move { letter::release_uncopied(&mut conn, until_us).await });
            released.await?;
        }
        copied
    }

    async fn copy_claimed(&mut self, letters: Vec<Stored>) -> Result<(), RoundError> {
        let is_last = letters.len() < PAGE_SIZE as usize;
        let mut outcome: Result<(), RoundError> = Ok(());
        for letter in letters {
            self.copied = letter.id;
            match self.copies.send(&letter).await {
                Ok(()) => self.note_copied(letter.id).await?,
                // Kafka may be unreachable, and each of the others would time out as well.
                Err(error @ Undelivered::TimedOut) => return outcome.and(Err(error.into())),
                Err(error) => outcome = outcome.and(Err(error.into())),
            }
        }
        if is_last {
            self.copied = 0;
        }
        outcome
    }

    async fn note_copied(&self, id: i64) -> Result<(), DbError> {
        let now_us = Timestamp::now().micros();
        self.db.run("letter_copied", |mut conn| async move { letter::copied(&mut conn, id, now_us).await }).await
    }
}

async fn replay_in<H: Handler>(
    conn: &mut MySqlConnection,
    handler: &H,
    (topic, key): &Key,
    tried: &AtomicI64,
) -> Result<Step<H::Effects>, Failure> {
    rows::lock_park(conn, topic, key).await?;
    let first = letter::first_open(conn, topic, key).await?;
    let Some(first) = first.filter(Stored::is_to_be_replayed) else { return Ok(Step::None) };
    tried.store(first.id, Ordering::Relaxed);
    let poison = |why: String| Failure::Poison { index: 0, why };
    if rows::waits_for_kafka(conn, topic, key).await? {
        let why = "the first letter of its key is in Kafka alone, where an earlier release has put it";
        return Err(poison(why.to_owned()));
    }
    let id = first.id;
    let message = [first.into_message().map_err(|error| poison(format!("its headers: {error}")))?];
    if rows::is_discarded(conn, &message[0]).await? {
        letter::skipped(conn, id, topic, key).await?;
        return Ok(Step::Skipped);
    }
    let effects = handler.apply(conn, &message).await.map_err(|error| Failure::of_handler(error, 1))?;
    letter::replayed(conn, id, topic, key).await?;
    Ok(Step::Applied(effects))
}

fn log_failure(throttle: &mut LogThrottle, error: &RoundError) {
    match throttle.failure() {
        LogEvent::Started => tracing::warn!(error.cause = %error, "dead letters cannot be handled, trying again"),
        LogEvent::Ongoing(time) => tracing::error!(
            inbox.stands_s = time.as_secs(),
            error.cause = %error,
            "dead letters cannot be handled, trying again"
        ),
        LogEvent::Suppressed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_fails_is_retried_with_back_off_until_it_succeeds() {
        let mut failing = Failing::default();
        let [sick, well] = ["sick", "well"].map(|key| ("t".to_owned(), key.to_owned()));
        let (shortest, longest) = BACKOFF;
        failing.failed(sick.clone());
        assert!(failing.waits(&sick) && !failing.waits(&well));
        advance(shortest).await;
        assert!(!failing.waits(&sick));
        for _ in 0..10 {
            failing.failed(sick.clone());
        }
        advance(longest / 3).await;
        assert!(failing.waits(&sick), "half of the longest wait at least");
        failing.succeeded(&sick);
        assert!(!failing.waits(&sick));
        failing.failed(sick);
        advance(3 * longest).await;
        failing.failed(well);
        assert_eq!(failing.0.len(), 1, "a key that is long overdue is forgotten");
    }
}
