//! Applies one batch: deduplicates it, applies it and records it in one transaction, and isolates what can't be
//! applied.

use crate::{HandleError, Handler, Message, dead_letter::DeadLetters, message::Unreadable, rows, trace};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, WorkError};
use stampede_vocab::{Timestamp, backoff};
use std::{collections::HashSet, fmt::Display, future::Future, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Attempts of a batch, or of one message, before its failure is taken for permanent.
const ATTEMPTS: u32 = 5;

/// Why a transaction was rolled back.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a message that can never be applied: {why}")]
    Poison { message: Box<Message>, why: String },
}

impl WorkError for Failure {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Poison { .. } => None,
        }
    }
}

/// The consumer was stopped before the batch was applied. It is read again, so nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("stopped before the batch was applied")]
pub struct Stopped;

/// Applies batches of one consumer.
pub struct Applier<H> {
    pub db: Database,
    pub handler: Arc<H>,
    pub dead_letters: DeadLetters,
    pub stop: CancellationToken,
}

impl<H: Handler> Applier<H> {
    /// Applies the batch. Returns once every message of it is applied or is a dead letter; fails only if stopped.
    pub async fn apply(&self, batch: Vec<Message>) -> Result<(), Stopped> {
        let left = self.apply_while_whole(batch).await?;
        for message in left {
            // In a batch nothing says which message the database refuses; alone, it can only be this one.
            for message in self.apply_while_whole(vec![message]).await? {
                self.set_aside(&message, "failed in every attempt; the log has the errors").await?;
            }
        }
        Ok(())
    }

    /// Applies the batch in one transaction, without the messages that are poison. Returns what it could not apply in
    /// any attempt, which is mostly nothing.
    async fn apply_while_whole(&self, mut batch: Vec<Message>) -> Result<Vec<Message>, Stopped> {
        let mut attempt = 0;
        while !batch.is_empty() {
            match self.attempt(&batch).await {
                Ok(effects) => {
                    // Before the offsets are stored: a stop waits for it, only a crash can lose it.
                    self.handler.committed(effects).await;
                    return Ok(Vec::new());
                }
                Err(Failure::Poison { message, why }) => {
                    // Not counted as an attempt: the batch gets shorter each time, so the loop ends.
                    self.set_aside(&message, &why).await?;
                    batch.retain(|other| !other.is_same_delivery(&message));
                }
                Err(Failure::Db(error)) => {
                    attempt += 1;
                    tracing::warn!(error.cause = %error, inbox.attempt = attempt, inbox.batch = batch.len(), "batch was not applied, trying again");
                    // An unreachable database or a lock says nothing about the messages: dead letters of them would
                    // park every key that is read during an outage. It is retried until it works.
                    let is_passing = error.is_unreachable() || error.is_deadlock();
                    if attempt >= ATTEMPTS && !is_passing {
                        return Ok(batch);
                    }
                    self.pause(attempt).await?;
                }
            }
        }
        Ok(batch)
    }

    /// Applies and records the new messages of the batch in one transaction.
    async fn attempt(&self, batch: &[Message]) -> Result<H::Effects, Failure> {
        let handler = self.handler.clone();
        let batch: Arc<[Message]> = batch.into();
        let spans = trace::spans(&batch);
        let applied = self.db.transact_with("apply_messages", move |conn| {
            let (handler, batch) = (handler.clone(), batch.clone());
            Box::pin(async move { apply_in(conn, &*handler, &batch).await })
        });
        let outcome = applied.await;
        // Open until here, so that each span lasts as long as the transaction with its commit.
        drop(spans);
        outcome
    }

    /// Makes a dead letter of the message and parks its key, so that later ones of the key do not overtake it.
    async fn set_aside(&self, message: &Message, why: &str) -> Result<(), Stopped> {
        // Kafka first: a crash in between sends the dead letter twice. The other way round it would be recorded and
        // gone.
        self.until_done("dead letter was not taken by Kafka", || self.dead_letters.send(message, why)).await?;
        self.until_done("dead letter was not recorded", || self.park(message)).await
    }

    /// Makes dead letters of records that are no messages of ours. There is no id to record and no key to park.
    pub async fn set_aside_unreadable(&self, records: &[Unreadable]) -> Result<(), Stopped> {
        for record in records {
            self.until_done("dead letter was not taken by Kafka", || self.dead_letters.send_unreadable(record)).await?;
        }
        Ok(())
    }

    /// Retries `step` until it succeeds or the consumer is stopped.
    async fn until_done<E: Display, Fut>(&self, failed: &str, step: impl Fn() -> Fut) -> Result<(), Stopped>
    where
        Fut: Future<Output = Result<(), E>>,
    {
        let mut attempt = 0;
        while let Err(error) = step().await {
            tracing::error!(error.cause = %error, inbox.attempt = attempt, "{failed}, trying again");
            self.pause(attempt).await?;
            attempt += 1;
        }
        Ok(())
    }

    async fn park(&self, message: &Message) -> Result<(), DbError> {
        let message = Arc::new(message.clone());
        self.db
            .transact("park_message", move |conn| {
                let message = message.clone();
                Box::pin(async move {
                    let now_us = Timestamp::now().micros();
                    // Recorded like an applied one, so that a redelivery is dropped and makes no second dead letter. It
                    // is known already if the commit of an earlier attempt was not acknowledged.
                    if rows::known(conn, std::slice::from_ref(&*message)).await?.is_empty() {
                        rows::record(conn, std::slice::from_ref(&*message), now_us).await?;
                    }
                    rows::park(conn, &message, now_us).await
                })
            })
            .await
    }

    /// Waits before the next try; cut short by `stop`.
    async fn pause(&self, attempt: u32) -> Result<(), Stopped> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(backoff(attempt)) => Ok(()),
        }
    }
}

async fn apply_in<H: Handler>(
    conn: &mut MySqlConnection,
    handler: &H,
    batch: &[Message],
) -> Result<H::Effects, Failure> {
    let new = record_new(conn, batch, Timestamp::now().micros()).await?;
    none_is_parked(conn, &new).await?;
    handler.apply(conn, &new).await.map_err(|error| match error {
        HandleError::Db(error) => Failure::Db(error),
        HandleError::Poison { index, detail } => match new.get(index) {
            Some(message) => Failure::Poison { message: Box::new(message.clone()), why: detail },
            None => Failure::Db(DbError::inconsistent(format!("message {index} of {} is poison: {detail}", new.len()))),
        },
    })
}

/// Records the messages that are not recorded yet, and returns them, each once. Mostly all of them are new, so it
/// inserts first and reads the known ones only if the unique key refuses a row.
async fn record_new(conn: &mut MySqlConnection, batch: &[Message], now_us: i64) -> Result<Vec<Message>, DbError> {
    let all = unseen(batch, HashSet::new());
    match rows::record(conn, &all, now_us).await {
        Err(error) if error.unique_violation().is_some() => {
            // The refused INSERT is undone alone, and the transaction goes on. At READ COMMITTED this read sees what
            // the other consumer has committed, which the INSERT has waited for.
            let new = unseen(batch, rows::known(conn, batch).await?);
            rows::record(conn, &new, now_us).await?;
            Ok(new)
        }
        recorded => recorded.map(|()| all),
    }
}

/// Returns the messages of the batch that are not among `seen`, each once.
fn unseen(batch: &[Message], mut seen: HashSet<(String, u64)>) -> Vec<Message> {
    batch.iter().filter(|message| seen.insert((message.source.clone(), message.id))).cloned().collect()
}

/// Fails with the first message behind a dead letter of its key: it becomes a dead letter too.
async fn none_is_parked(conn: &mut MySqlConnection, new: &[Message]) -> Result<(), Failure> {
    let parked = rows::parked(conn, new).await?;
    let is_parked = |message: &&Message| {
        // An earlier offset is a message from before the dead letter, and is applied.
        let from = parked.get(&(message.topic.clone(), message.key.clone()));
        from.is_some_and(|from| message.offset >= *from)
    };
    match new.iter().find(is_parked) {
        None => Ok(()),
        Some(message) => {
            let why = "parked behind an earlier dead letter of the same key".to_owned();
            Err(Failure::Poison { message: Box::new(message.clone()), why })
        }
    }
}
