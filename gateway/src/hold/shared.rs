//! One stream of a service for all who watch the same public resource.
//!
//! What is public is the same for everybody, so a crowd that watches one event is one watcher for the service: its
//! messages arrive here once, are rendered once, and are handed to each of the crowd. Who joins later first gets the
//! state as it is, like a watcher with a stream of their own.

use super::{metrics::slow_readers, newest::Slot};
use crate::{
    bounds::{MAX_WAITING_MESSAGES, WATCHER_STALL_DEADLINE},
    routes::Rpc,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use stampede_status::Problem;
use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::{
    sync::SetOnce,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// Watchers who get a message before other tasks have a turn.
const WATCHERS_PER_TURN: usize = 256;
/// Entries of the table at which those without watchers are removed.
const MIN_ENTRIES_TO_PURGE: usize = 64;

/// The streams that somebody watches, by method and request.
pub struct SharedStreams<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    streams: HashMap<(Arc<str>, Bytes), Weak<SharedStream<T>>>,
    purge_at: usize,
}

impl<T> Default for SharedStreams<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { streams: HashMap::new(), purge_at: MIN_ENTRIES_TO_PURGE }) }
    }
}

impl<T: Clone + Send + Sync + 'static> SharedStreams<T> {
    /// Joins those who watch by this request, or calls `open` if nobody does. `subject` returns the subject of a
    /// message. The stream of the service ends when its last watcher leaves.
    pub fn join<O, S, F>(&self, rpc: &Rpc, request: &Bytes, open: impl FnOnce() -> O, subject: F) -> Watcher<T>
    where
        O: Future<Output = Result<S, Problem>> + Send + 'static,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
        F: Fn(&T) -> Option<String> + Send + 'static,
    {
        // No code panics while it has this lock.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(&rpc.label), request.clone());
        let stream = table.streams.get(&key).and_then(Weak::upgrade);
        if let Some(watcher) = stream.and_then(SharedStream::join) {
            return watcher;
        }
        table.purge();
        let first = SharedStream::begin(open(), subject);
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
    fn begin<O, S, F>(open: O, subject: F) -> Watcher<T>
    where
        O: Future<Output = Result<S, Problem>> + Send + 'static,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
        F: Fn(&T) -> Option<String> + Send + 'static,
    {
        let watchers = Arc::new(Watchers::new());
        let (number, slot) = watchers.add().expect("it has not begun, so it is not over");
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(open, subject, Arc::clone(&watchers))));
        Watcher { stream: Arc::new(Self { watchers, _pump: pump }), number, slot }
    }

    /// Adds a watcher; `None` after the end.
    fn join(self: Arc<Self>) -> Option<Watcher<T>> {
        let (number, slot) = self.watchers.add()?;
        Some(Watcher { stream: self, number, slot })
    }
}

/// Opens the stream, and gives each message to all watchers until it ends.
async fn pump<T, S>(
    open: impl Future<Output = Result<S, Problem>>,
    subject: impl Fn(&T) -> Option<String>,
    watchers: Arc<Watchers<T>>,
) where
    T: Clone,
    S: Stream<Item = Result<T, Status>>,
{
    let messages = match open.await {
        Ok(messages) => messages,
        Err(problem) => return watchers.fail(problem),
    };
    watchers.opened.set(Ok(())).ok();
    let mut messages = pin!(messages);
    let mut checks = interval(WATCHER_STALL_DEADLINE / 4);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => watchers.put(subject(&message), message).await,
                Some(Err(status)) => break Some(status),
                None => break None,
            },
            _ = checks.tick() => watchers.give_up_stalled(),
        }
    };
    watchers.end(end);
}

/// The watchers of a stream, and what it has said so far.
struct Watchers<T> {
    state: Mutex<State<T>>,
    /// Whether the service has opened the stream, once it has answered.
    opened: SetOnce<Result<(), Problem>>,
}

struct State<T> {
    slots: HashMap<u64, Arc<Slot<T>>>,
    next_number: u64,
    /// The newest message of each subject, in the order in which the subjects arrived first.
    newest: Vec<(Option<String>, T)>,
    is_over: bool,
}

impl<T: Clone> Watchers<T> {
    fn new() -> Self {
        let state = State { slots: HashMap::new(), next_number: 0, newest: Vec::new(), is_over: false };
        Self { state: Mutex::new(state), opened: SetOnce::new() }
    }

    /// Adds a watcher, who is told all that is known; `None` after the end.
    fn add(&self) -> Option<(u64, Arc<Slot<T>>)> {
        let mut state = self.state();
        if state.is_over {
            return None;
        }
        let slot = Arc::new(Slot::new());
        for (subject, message) in &state.newest {
            slot.put(subject.clone(), message.clone());
        }
        let number = state.next_number;
        state.next_number += 1;
        state.slots.insert(number, Arc::clone(&slot));
        Some((number, slot))
    }

    /// Ends a stream that the service has refused. Whoever comes later asks again.
    fn fail(&self, problem: Problem) {
        self.end(None);
        self.opened.set(Err(problem)).ok();
    }

    async fn put(&self, subject: Option<String>, message: T) {
        // Whoever is added from here on gets the message as the newest.
        let slots = self.state().remember(subject.clone(), message.clone());
        for turn in slots.chunks(WATCHERS_PER_TURN) {
            for slot in turn {
                slot.put(subject.clone(), message.clone());
            }
            yield_now().await;
        }
    }

    fn give_up_stalled(&self) {
        self.state().slots.retain(|_, slot| {
            let is_stalled = slot.is_stalled();
            if is_stalled {
                slow_readers().add(1, &[]);
                slot.give_up();
            }
            !is_stalled
        });
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

impl<T> State<T> {
    /// Keeps the message for those who join. Returns the watchers of now.
    fn remember(&mut self, subject: Option<String>, message: T) -> Vec<Arc<Slot<T>>> {
        match self.newest.iter_mut().find(|(other, _)| *other == subject) {
            Some((_, older)) => *older = message,
            None => {
                if self.newest.len() >= MAX_WAITING_MESSAGES {
                    self.newest.remove(0);
                }
                self.newest.push((subject, message));
            }
        }
        self.slots.values().cloned().collect()
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
        self.stream.watchers.opened.wait().await.clone()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table as Routes};
    use http::Method;
    use stampede_status::Reason;
    use std::time::Duration;
    use tokio::{
        sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
        time::{sleep, timeout},
    };

    type Message = Result<&'static str, Status>;

    /// A service that says what a test lets it say.
    #[derive(Default)]
    struct Service {
        streams: SharedStreams<&'static str>,
        opened: Mutex<Vec<UnboundedSender<Message>>>,
    }

    fn rpc() -> Arc<Rpc> {
        let table = Routes::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&Method::GET, "/v1/events:watch") else { panic!("no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
        Arc::clone(rpc)
    }

    fn received(messages: UnboundedReceiver<Message>) -> impl Stream<Item = Message> + Send + 'static {
        stream::unfold(messages, |mut messages| async move { Some((messages.recv().await?, messages)) })
    }

    impl Service {
        fn watch(&self, request: &'static str) -> Watcher<&'static str> {
            let open = || {
                let (sender, messages) = mpsc::unbounded_channel();
                self.opened.lock().unwrap().push(sender);
                async move { Ok(received(messages)) }
            };
            // The subject of "a1" is "a".
            self.streams.join(&rpc(), &Bytes::from(request), open, |message| Some(message[..1].to_owned()))
        }

        fn refused(&self) -> Watcher<&'static str> {
            let open = || async { Err::<stream::Empty<Message>, _>(Problem::new(Reason::EventNotFound, "none")) };
            self.streams.join(&rpc(), &Bytes::from("refused"), open, |_| None)
        }

        /// Sends a message on the stream that was opened as this one.
        fn say(&self, stream: usize, message: Message) {
            self.opened.lock().unwrap()[stream].send(message).unwrap();
        }

        fn streams(&self) -> usize {
            self.opened.lock().unwrap().len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_one_watcher_for_the_service() {
        let service = Service::default();
        let crowd: Vec<_> = (0..1_000).map(|_| service.watch("a")).collect();
        let other = service.watch("b");
        assert_eq!(service.streams(), 2);
        service.say(0, Ok("a1"));
        for watcher in crowd {
            watcher.opened().await.unwrap();
            assert_eq!(pin!(watcher.messages()).next().await.unwrap().unwrap(), "a1");
        }
        timeout(Duration::from_secs(1), pin!(other.messages()).next()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_later_is_told_how_things_are() {
        let service = Service::default();
        let mut first = pin!(service.watch("a").messages());
        for message in ["a1", "b1", "a2"] {
            service.say(0, Ok(message));
            assert_eq!(first.next().await.unwrap().unwrap(), message);
        }
        let mut second = pin!(service.watch("a").messages());
        for message in ["a2", "b1"] {
            assert_eq!(second.next().await.unwrap().unwrap(), message);
        }
        service.say(0, Ok("b2"));
        assert_eq!(second.next().await.unwrap().unwrap(), "b2");
        assert_eq!(service.streams(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_who_leaves_ends_it() {
        let service = Service::default();
        let (first, second) = (service.watch("a"), service.watch("a"));
        drop(first);
        sleep(Duration::from_millis(1)).await;
        service.say(0, Ok("a1"));
        drop(second);
        sleep(Duration::from_millis(1)).await;
        assert!(service.opened.lock().unwrap()[0].is_closed());
        drop(service.watch("a"));
        assert_eq!(service.streams(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn its_end_is_that_of_all_and_whoever_comes_then_opens_another() {
        let service = Service::default();
        let crowd = [service.watch("a"), service.watch("a")];
        service.say(0, Ok("a1"));
        service.say(0, Err(Status::from(Problem::new(Reason::Unavailable, "it leaves"))));
        for watcher in crowd {
            let mut messages = pin!(watcher.messages());
            assert_eq!(messages.next().await.unwrap().unwrap(), "a1");
            let end = messages.next().await.unwrap().unwrap_err();
            assert_eq!(Problem::from_status(&end).reason(), Reason::Unavailable);
            assert!(messages.next().await.is_none());
        }
        let _next = service.watch("a");
        assert_eq!(service.streams(), 2);
    }

    #[tokio::test]
    async fn a_refusal_is_that_of_all_who_wait_for_it() {
        let service = Service::default();
        let crowd = [service.refused(), service.refused()];
        for watcher in crowd {
            assert_eq!(watcher.opened().await.unwrap_err().reason(), Reason::EventNotFound);
        }
        service.refused().opened().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_stands_still_is_given_up_alone() {
        let service = Service::default();
        let (mut reads, mut stalls) = (pin!(service.watch("a").messages()), pin!(service.watch("a").messages()));
        for message in ["a1", "a2", "a3"] {
            service.say(0, Ok(message));
            assert_eq!(reads.next().await.unwrap().unwrap(), message);
            sleep(WATCHER_STALL_DEADLINE * 2 / 3).await;
        }
        assert_eq!(stalls.next().await.unwrap().unwrap(), "a2", "the newest when it was given up");
        let end = stalls.next().await.unwrap().unwrap_err();
        assert_eq!(Problem::from_status(&end).reason(), Reason::SlowReader);
        service.say(0, Ok("a4"));
        assert_eq!(reads.next().await.unwrap().unwrap(), "a4");
    }

    #[tokio::test]
    async fn streams_that_nobody_watches_are_forgotten() {
        let service = Service::default();
        for number in 0..1_000 {
            let open = || async { Ok(stream::pending::<Message>()) };
            drop(service.streams.join(&rpc(), &Bytes::from(number.to_string()), open, |_| None));
        }
        assert!(service.streams.table.lock().unwrap().streams.len() <= 2 * MIN_ENTRIES_TO_PURGE);
    }
}
