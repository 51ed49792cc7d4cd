//! Buffers the messages of a stream for a slow reader: reads them as they arrive, and keeps only the newest of each
//! subject until the reader takes it.
//!
//! So unread messages fill neither the flow-control window of the connection to the service nor a queue. A stalled
//! reader is disconnected, with an error as its last message.

use super::metrics::slow_readers;
use crate::bounds::MAX_WAITING_MESSAGES;
use futures_util::{Stream, StreamExt, stream};
use prost_reflect::{DynamicMessage, Value};
use stampede_status::{Problem, Reason};
use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// Reads `messages` from now on, whether or not the returned stream is polled. `subject` returns the subject of a
/// message. A reader that takes nothing for `stall_deadline` is given up.
pub fn newest<T, S, F>(
    messages: S,
    subject: F,
    stall_deadline: Duration,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static
where
    T: Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
    F: Fn(&T) -> Option<String> + Send + 'static,
{
    let slot = Arc::new(Slot::new());
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(messages, subject, Arc::clone(&slot), stall_deadline)));
    stream::unfold((slot, pump), |(slot, pump)| async move {
        let message = slot.next().await?;
        Some((message, (slot, pump)))
    })
    .fuse()
}

/// Puts each message into the slot, until the service or the reader ends the stream.
async fn pump<T>(
    messages: impl Stream<Item = Result<T, Status>>,
    subject: impl Fn(&T) -> Option<String>,
    slot: Arc<Slot<T>>,
    stall_deadline: Duration,
) {
    let mut messages = pin!(messages);
    let mut checks = interval(stall_deadline / 2);
    let end = loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => slot.put(subject(&message), message),
                Some(Err(status)) => break Some(status),
                None => break None,
            },
            _ = checks.tick() => {
                if slot.is_stalled(stall_deadline) {
                    return slot.give_up();
                }
            }
        }
    };
    slot.end(end);
}

/// The messages that wait for the reader.
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    /// The newest of each subject, in the order in which the subjects arrived first.
    waiting: VecDeque<(Option<String>, T)>,
    /// When the first of them began to wait, or the last was taken.
    waits_since: Option<Instant>,
    /// The end of the stream: an error, or none.
    end: Option<Option<Status>>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), waits_since: None, end: None };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Replaces the message of the same subject that was not taken yet.
    pub(super) fn put(&self, subject: Option<String>, message: T) {
        let mut state = self.state();
        match state.waiting.iter_mut().find(|(other, _)| *other == subject) {
            Some((_, older)) => *older = message,
            None => {
                if state.waiting.len() >= MAX_WAITING_MESSAGES {
                    state.waiting.pop_front();
                }
                state.waiting.push_back((subject, message));
            }
        }
        state.waits_since.get_or_insert_with(Instant::now);
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the stream behind what waits, with an error if there is one.
    pub(super) fn end(&self, end: Option<Status>) {
        self.state().end = Some(end);
        self.changed.notify_one();
    }

    /// Ends the stream of a reader who is stalled, with the reason, and counts it.
    pub(super) fn give_up(&self) {
        slow_readers().add(1, &[]);
        self.end(Some(Problem::new(Reason::SlowReader, "the stream was not read for too long").into()));
    }

    /// Returns whether a message has waited for so long.
    pub(super) fn is_stalled(&self, deadline: Duration) -> bool {
        self.state().waits_since.is_some_and(|since| since.elapsed() >= deadline)
    }

    /// Returns the next message, or the error that ends the stream; `None` after that.
    pub(super) async fn next(&self) -> Option<Result<T, Status>> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    fn take(&self) -> Option<Option<Result<T, Status>>> {
        let mut state = self.state();
        if let Some((_, message)) = state.waiting.pop_front() {
            state.waits_since = (!state.waiting.is_empty()).then(Instant::now);
            return Some(Some(Ok(message)));
        }
        // After its error the stream has ended too.
        let end = state.end.as_mut()?;
        Some(end.take().map(Err))
    }

    /// No code panics while it has this lock.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the subject of a message: by the rule of the contract, the first field of a stream's message is the
/// resource, and the first field of that its id. One that is a list, or has no id, replaces all that came before it.
pub fn subject(message: &DynamicMessage) -> Option<String> {
    let resource = message.get_field_by_number(1)?;
    let id = resource.as_message()?.get_field_by_number(1)?;
    match id.as_ref() {
        Value::String(id) => Some(id.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_reflect::DescriptorPool;
    use stampede_proto::event::v1::{Event, WatchEventsResponse};

    const STALL_DEADLINE: Duration = Duration::from_secs(5);

    fn event(id: &str, name: &str) -> Result<DynamicMessage, Status> {
        let contract = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
        let descriptor = contract.get_message_by_name("stampede.event.v1.WatchEventsResponse").unwrap();
        let event = Event { event_id: id.to_owned(), name: name.to_owned(), ..Event::default() };
        let message = WatchEventsResponse { event: Some(event) };
        Ok(DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).unwrap())
    }

    fn name(message: &DynamicMessage) -> String {
        let message = WatchEventsResponse::decode(message.encode_to_vec().as_slice()).unwrap();
        message.event.unwrap().name
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_the_newest_of_each_subject() {
        let messages = [event("evt_1", "a"), event("evt_2", "b"), event("evt_1", "c"), event("evt_1", "d")];
        let read = newest(stream::iter(messages).chain(stream::pending()), subject, STALL_DEADLINE);
        let mut read = pin!(read);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(name(&read.next().await.unwrap().unwrap()), "d");
        assert_eq!(name(&read.next().await.unwrap().unwrap()), "b");
        let more = tokio::time::timeout(Duration::from_secs(1), read.next()).await;
        assert!(more.is_err(), "there is no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_given_up_and_gets_the_reason() {
        let messages = stream::iter([event("evt_1", "a")]).chain(stream::pending());
        let mut read = pin!(newest(messages, subject, STALL_DEADLINE));
        tokio::time::sleep(STALL_DEADLINE * 2).await;
        assert_eq!(name(&read.next().await.unwrap().unwrap()), "a");
        let end = read.next().await.unwrap().unwrap_err();
        assert_eq!(Problem::from_status(&end).reason(), Reason::SlowReader);
        assert!(read.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_is_not_given_up() {
        let late = stream::once(async {
            tokio::time::sleep(STALL_DEADLINE * 3).await;
            event("evt_1", "late")
        });
        let mut read = pin!(newest(late, subject, STALL_DEADLINE));
        assert_eq!(name(&read.next().await.unwrap().unwrap()), "late");
        assert!(read.next().await.is_none());
    }
}
