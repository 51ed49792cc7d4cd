//! One stream of a service for all who watch the same public resource.
//!
//! What is public is the same for everybody, so a crowd that watches one event is one watcher for the service: its
//! messages arrive here once, are rendered once, and are handed to each of the crowd. Who joins later first gets the
//! newest that has arrived. After a while newcomers open another stream: one whose replica has gone silent does not
//! stay that of all, and a replica that is added gets its share.

#[cfg(test)]
mod tests;

use super::newest::Slot;
use crate::{bounds::MAX_WAITING_MESSAGES, problem::apart, routes::Rpc};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use stampede_status::Problem;
use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::SetOnce,
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::{Instrument, Span};

/// Watchers who get a message before other tasks have a turn.
const WATCHERS_PER_TURN: usize = 256;
/// Time from the opening of a stream in which others may join it: that of a crowd that arrives together.
const JOIN_TIME: Duration = Duration::from_secs(10);
/// Entries of the table at which those without watchers are removed.
const MIN_ENTRIES_TO_PURGE: usize = 64;

/// The streams that somebody watches, by method and request.
pub struct SharedStreams<T> {
    table: Mutex<Table<T>>,
    /// Longest time in which a watcher takes nothing while something waits.
    stall_deadline: Duration,
}

/// The method, and the digest of the request, which may be as large as a body.
type Key = (Arc<str>, [u8; 32]);

struct Table<T> {
    streams: HashMap<Key, Weak<SharedStream<T>>>,
    purge_at: usize,
}

impl<T: Clone + Send + Sync + 'static> SharedStreams<T> {
    /// A watcher that takes nothing for `stall_deadline` is given up.
    pub fn new(stall_deadline: Duration) -> Self {
        let table = Table { streams: HashMap::new(), purge_at: MIN_ENTRIES_TO_PURGE };
        Self { table: Mutex::new(table), stall_deadline }
    }

    /// Joins those who watch by this request, or calls `open` if nobody does. `subject` returns the subject of a
    /// message. The stream of the service ends when its last watcher leaves.
    pub fn join<O, S, F>(&self, rpc: &Rpc, request: &Bytes, open: impl FnOnce() -> O, subject: F) -> Watcher<T>
    where
        O: Future<Output = Result<S, Problem>> + Send + 'static,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
        F: Fn(&T) -> Option<String> + Send + 'static,
    {
        let key = (Arc::clone(&rpc.label), Sha256::digest(request).into());
        // No code panics while it has this lock.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = table.streams.get(&key).and_then(Weak::upgrade);
        if let Some(watcher) = stream.and_then(SharedStream::join) {
            return watcher;
        }
        table.purge();
        let first = SharedStream::begin(open(), subject, self.stall_deadline);
        table.streams.insert(key, Arc::downgrade(&first.stream));
        first
    }
}

impl<T> Table<T> {
    /// Removes the streams without watchers, once there may be many.
    fn purge(&mut self) {
        if self.streams.len() >= self.purge_at {
            self.streams.retain(|_, stream| stream.strong_count() > 0);
            self.purge_at = MIN_ENTRIES_TO_PURGE.max(2 * self.streams.len());
        }
    }
}

/// A stream of a service, and its watchers.
struct SharedStream<T> {
    watchers: Arc<Watchers<T>>,
    /// Reads the stream until the last watcher leaves.
    _pump: AbortOnDropHandle<()>,
}

impl<T: Clone + Send + Sync + 'static> SharedStream<T> {
    /// Opens a stream. Returns its first watcher.
    fn begin<O, S, F>(open: O, subject: F, stall_deadline: Duration) -> Watcher<T>
    where
        O: Future<Output = Result<S, Problem>> + Send + 'static,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
        F: Fn(&T) -> Option<String> + Send + 'static,
    {
        let watchers = Arc::new(Watchers::new());
        let (number, slot) = watchers.state().add();
        // Only the call is part of the request's trace: the stream outlives it.
        let open = open.instrument(Span::current());
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(open, subject, Arc::clone(&watchers), stall_deadline)));
        Watcher { stream: Arc::new(Self { watchers, _pump: pump }), number, slot }
    }

    /// Adds a watcher; `None` after the end, or when the time to join is over.
    fn join(self: Arc<Self>) -> Option<Watcher<T>> {
        let (number, slot) = self.watchers.join()?;
        Some(Watcher { stream: self, number, slot })
    }
}

/// Opens the stream, and gives each message to all watchers until it ends.
async fn pump<T, S>(
    open: impl Future<Output = Result<S, Problem>>,
    subject: impl Fn(&T) -> Option<String>,
    watchers: Arc<Watchers<T>>,
    stall_deadline: Duration,
) where
    T: Clone,
    S: Stream<Item = Result<T, Status>>,
{
    let _guard = EndsAll(&watchers);
    let messages = match open.await {
        Ok(messages) => messages,
        Err(problem) => return watchers.fail(problem),
    };
    watchers.opened.set(Ok(())).ok();
    let mut messages = pin!(messages);
    let mut checks = interval(stall_deadline / 2);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => watchers.put(subject(&message), message).await,
                Some(Err(status)) => break Some(status),
                None => break None,
            },
            _ = checks.tick() => if watchers.give_up_stalled(stall_deadline) {
                break None;
            },
        }
    };
    watchers.end(end);
}

/// Ends the watchers of a pump that panics.
struct EndsAll<'w, T: Clone>(&'w Watchers<T>);

impl<T: Clone> Drop for EndsAll<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let problem = Problem::internal_error("the reader of a shared stream has panicked");
            self.0.end(Some(problem.clone().into()));
            self.0.opened.set(Err(problem)).ok();
        }
    }
}

/// The watchers of a stream, and what it has said so far.
struct Watchers<T> {
    state: Mutex<State<T>>,
    /// Whether the service has opened the stream, once it has answered.
    opened: SetOnce<Result<(), Problem>>,
    /// Until when others may join.
    joinable_until: Instant,
}

struct State<T> {
    slots: HashMap<u64, Arc<Slot<T>>>,
    next_number: u64,
    /// The newest message of each subject, in the order in which the subjects arrived first, while others may join.
    newest: Vec<(Option<String>, T)>,
    is_over: bool,
}

impl<T: Clone> Watchers<T> {
    fn new() -> Self {
        let state = State { slots: HashMap::new(), next_number: 0, newest: Vec::new(), is_over: false };
        Self { state: Mutex::new(state), opened: SetOnce::new(), joinable_until: Instant::now() + JOIN_TIME }
    }

    fn is_joinable(&self) -> bool {
        Instant::now() < self.joinable_until
    }

    /// Adds a watcher, who is told all that is known; `None` after the end, or when the time to join is over.
    fn join(&self) -> Option<(u64, Arc<Slot<T>>)> {
        let mut state = self.state();
        (!state.is_over && self.is_joinable()).then(|| state.add())
    }

    /// Ends a stream that the service has refused. Whoever comes later asks again.
    fn fail(&self, problem: Problem) {
        self.end(None);
        self.opened.set(Err(problem)).ok();
    }

    async fn put(&self, subject: Option<String>, message: T) {
        // Whoever is added from here on gets the message as the newest.
        let slots = {
            let mut state = self.state();
            if self.is_joinable() {
                state.remember(subject.clone(), message.clone());
            }
            state.slots.values().cloned().collect::<Vec<_>>()
        };
        for turn in slots.chunks(WATCHERS_PER_TURN) {
            for slot in turn {
                slot.put(subject.clone(), message.clone());
            }
            yield_now().await;
        }
    }

    /// Gives up those who are stalled, and forgets what only newcomers need once there can be none. Returns whether
    /// nobody is left: then the stream is over.
    fn give_up_stalled(&self, deadline: Duration) -> bool {
        let mut state = self.state();
        if !self.is_joinable() {
            state.newest = Vec::new();
        }
        state.slots.retain(|_, slot| {
            let is_stalled = slot.is_stalled(deadline);
            if is_stalled {
                slot.give_up();
            }
            !is_stalled
        });
        state.is_over = state.slots.is_empty();
        state.is_over
    }

    fn end(&self, end: Option<Status>) {
        let mut state = self.state();
        state.is_over = true;
        let slots = std::mem::take(&mut state.slots);
        drop(state);
        for slot in slots.into_values() {
            slot.end(end.clone());
        }
    }
}

impl<T> Watchers<T> {
    /// No code panics while it has this lock.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> State<T> {
    /// Adds a watcher, and puts into its slot all that is known.
    fn add(&mut self) -> (u64, Arc<Slot<T>>) {
        let slot = Arc::new(Slot::new());
        for (subject, message) in &self.newest {
            slot.put(subject.clone(), message.clone());
        }
        let number = self.next_number;
        self.next_number += 1;
        self.slots.insert(number, Arc::clone(&slot));
        (number, slot)
    }
}

impl<T> State<T> {
    /// Keeps the message for those who join.
    fn remember(&mut self, subject: Option<String>, message: T) {
        match self.newest.iter_mut().find(|(other, _)| *other == subject) {
            Some((_, older)) => *older = message,
            None => {
                if self.newest.len() >= MAX_WAITING_MESSAGES {
                    self.newest.remove(0);
                }
                self.newest.push((subject, message));
            }
        }
    }
}

/// One watcher of a shared stream. Leaves when dropped.
pub struct Watcher<T> {
    stream: Arc<SharedStream<T>>,
    number: u64,
    slot: Arc<Slot<T>>,
}

impl<T: Send + Sync + 'static> Watcher<T> {
    /// Waits until the service has opened the stream. Fails as it failed.
    pub async fn opened(&self) -> Result<(), Problem> {
        self.stream.watchers.opened.wait().await.clone().map_err(apart)
    }

    /// Returns the messages from now on: the newest of each subject for a slow reader, as [`super::newest()`] does.
    pub fn messages(self) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        stream::unfold(self, |watcher| async move {
            let message = watcher.slot.next().await?;
            Some((message, watcher))
        })
        .fuse()
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.stream.watchers.state().slots.remove(&self.number);
    }
}
