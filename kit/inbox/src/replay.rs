//! What is done about dead letters in the background: those that an operator wants replayed are applied, in the order of
//! their key, keys of which none is waited for are let go, and Kafka gets its copies.

use crate::{
    Handler,
    copies::Copies,
    failure::Failure,
    letter::{self, Stored},
    loud::{Loud, Telling},
    rows,
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_kafka::Undelivered;
use stampede_vocab::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Time between two looks, which cost one statement.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most keys or letters of one look.
const AT_A_TIME: u32 = 100;

/// Looks after the dead letters of one consumer.
pub struct Replay<H> {
    pub db: Database,
    pub handler: Arc<H>,
    pub copies: Copies,
    /// Wakes it when there are new letters.
    pub written: Arc<Notify>,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a copy was not taken by Kafka: {0}")]
    Copy(#[from] Undelivered),
}

/// A key with its topic.
type Key = (String, String);

impl<H: Handler> Replay<H> {
    /// Looks after them until it is dropped.
    pub async fn run(self) {
        let mut loud = Loud::default();
        loop {
            tokio::select! {
                () = self.written.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.round().await {
                Ok(()) => loud.passes(),
                Err(error) => tell(&mut loud, &error),
            }
        }
    }

    async fn round(&self) -> Result<(), RoundError> {
        let due = self.db.run("dead_letters_due", |mut conn| async move { letter::due(&mut conn).await }).await?;
        if due.replay != 0 {
            self.replay().await?;
        }
        if due.parked != 0 {
            self.unpark_settled().await?;
        }
        if due.copy != 0 {
            self.copy().await?;
        }
        Ok(())
    }

    async fn replay(&self) -> Result<(), DbError> {
        let keys = self.db.run("letters_to_replay", |mut conn| async move {
            letter::refuse_unreadable(&mut conn).await?;
            letter::to_replay(&mut conn, AT_A_TIME).await
        });
        for key in keys.await? {
            self.replay_key(Arc::new(key)).await?;
        }
        Ok(())
    }

    /// Applies the letters of the key one after the other, until one fails or none is left.
    async fn replay_key(&self, key: Arc<Key>) -> Result<(), DbError> {
        loop {
            match self.replay_first(key.clone()).await {
                Ok(Some(effects)) => self.handler.committed(effects).await,
                Ok(None) => return Ok(()),
                Err(failure) if failure.is_reproducible() => return self.not_replayed(key, &failure).await,
                Err(Failure::Db(error)) => return Err(error),
                Err(failure) => return Err(DbError::inconsistent(failure.to_string())),
            }
        }
    }

    /// Applies the first letter of the key that is waited for, if it is to be replayed. Its park is locked: what arrives
    /// meanwhile queues behind it.
    async fn replay_first(&self, key: Arc<Key>) -> Result<Option<H::Effects>, Failure> {
        let handler = self.handler.clone();
        let replayed = self.db.transact_with("replay_message", move |conn| {
            let (handler, key) = (handler.clone(), key.clone());
            Box::pin(async move { replay_in(conn, &*handler, &key).await })
        });
        replayed.await
    }

    async fn not_replayed(&self, key: Arc<Key>, failure: &Failure) -> Result<(), DbError> {
        let why = failure.to_string();
        tracing::error!(messaging.topic = %key.0, messaging.key = %key.1, error.cause = %why, "dead letter could not be replayed, it waits for another decision");
        let noted = self.db.transact("letter_not_replayed", move |conn| {
            let (key, why) = (key.clone(), why.clone());
            Box::pin(async move {
                let (topic, name) = &*key;
                rows::lock_park(conn, topic, name).await?;
                match letter::first_open(conn, topic, name).await? {
                    Some(first) if first.is_to_be_replayed() => {
                        letter::not_replayed(conn, first.id, (topic, name), &why).await
                    }
                    _ => Ok(()),
                }
            })
        });
        noted.await
    }

    /// Lets keys go whose letters were all discarded.
    async fn unpark_settled(&self) -> Result<(), DbError> {
        let keys =
            self.db.run("settled_keys", |mut conn| async move { rows::settled(&mut conn, AT_A_TIME).await }).await?;
        for key in keys {
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
            unparked.await?;
        }
        Ok(())
    }

    /// Sends the copies that are missing. A crash before it is noted sends one twice.
    async fn copy(&self) -> Result<(), RoundError> {
        let letters: Vec<Stored> = self
            .db
            .run("uncopied_letters", |mut conn| async move { letter::uncopied(&mut conn, AT_A_TIME).await })
            .await?;
        for letter in letters {
            self.copies.send(&letter).await?;
            let (id, now_us) = (letter.id, Timestamp::now().micros());
            let noted =
                self.db.run("letter_copied", |mut conn| async move { letter::copied(&mut conn, id, now_us).await });
            noted.await?;
        }
        Ok(())
    }
}

async fn replay_in<H: Handler>(
    conn: &mut MySqlConnection,
    handler: &H,
    (topic, key): &Key,
) -> Result<Option<H::Effects>, Failure> {
    rows::lock_park(conn, topic, key).await?;
    let first = letter::first_open(conn, topic, key).await?;
    let Some(first) = first.filter(Stored::is_to_be_replayed) else { return Ok(None) };
    let poison = |why: String| Failure::Poison { index: 0, why };
    if rows::waits_for_kafka(conn, topic, key).await? {
        let why = "the first letter of its key is in Kafka alone, where an earlier release has put it";
        return Err(poison(why.to_owned()));
    }
    let id = first.id;
    let message = [first.into_message().map_err(|error| poison(format!("its headers: {error}")))?];
    let effects = handler.apply(conn, &message).await.map_err(|error| Failure::of_handler(error, 1))?;
    letter::replayed(conn, id, topic, key).await?;
    Ok(Some(effects))
}

fn tell(loud: &mut Loud, error: &RoundError) {
    match loud.fails() {
        Telling::Begun => tracing::warn!(error.cause = %error, "dead letters cannot be seen to, trying again"),
        Telling::Lasts(time) => tracing::error!(
            inbox.stands_s = time.as_secs(),
            error.cause = %error,
            "dead letters cannot be seen to, trying again"
        ),
        Telling::Silent => {}
    }
}
