//! Tests of shared streams against a service that says what a test lets it say.

use super::*;
use crate::routes::{Endpoint, Lookup, Table as Routes};
use http::Method;
use stampede_status::Reason;
use std::sync::LazyLock;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{sleep, timeout},
};

type Message = Result<&'static str, Status>;

const STALL_DEADLINE: Duration = Duration::from_secs(5);

/// A service that says what a test lets it say.
struct Service {
    streams: SharedStreams<&'static str>,
    opened: Mutex<Vec<UnboundedSender<Message>>>,
}

impl Default for Service {
    fn default() -> Self {
        Self { streams: SharedStreams::new(STALL_DEADLINE), opened: Mutex::default() }
    }
}

/// Of a table of all routes, which takes long to make.
static RPC: LazyLock<Arc<Rpc>> = LazyLock::new(|| {
    let table = Routes::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
    let Lookup::Found(route) = table.find(&Method::GET, "/v1/events:watch") else { panic!("no route") };
    let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
    Arc::clone(rpc)
});

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
        self.streams.join(&RPC, &Bytes::from(request), open, |message| Some(message[..1].to_owned()))
    }

    fn refused(&self) -> Watcher<&'static str> {
        let open = || async { Err::<stream::Empty<Message>, _>(Problem::new(Reason::EventNotFound, "none")) };
        self.streams.join(&RPC, &Bytes::from("refused"), open, |_| None)
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
        sleep(STALL_DEADLINE * 9 / 10).await;
    }
    assert_eq!(stalls.next().await.unwrap().unwrap(), "a2", "the newest when it was given up");
    let end = stalls.next().await.unwrap().unwrap_err();
    assert_eq!(Problem::from_status(&end).reason(), Reason::SlowReader);
    service.say(0, Ok("a4"));
    assert_eq!(reads.next().await.unwrap().unwrap(), "a4");
}

#[tokio::test(start_paused = true)]
async fn who_comes_much_later_opens_another_stream() {
    let service = Service::default();
    let mut first = pin!(service.watch("a").messages());
    service.say(0, Ok("a1"));
    assert_eq!(first.next().await.unwrap().unwrap(), "a1");
    sleep(JOIN_TIME + STALL_DEADLINE).await;
    let mut second = pin!(service.watch("a").messages());
    assert_eq!(service.streams(), 2, "the first may have gone silent");
    service.say(1, Ok("a2"));
    assert_eq!(second.next().await.unwrap().unwrap(), "a2");
    service.say(0, Ok("a3"));
    assert_eq!(first.next().await.unwrap().unwrap(), "a3", "it goes on for those who watch it");
}

#[tokio::test]
async fn who_share_a_refusal_do_not_come_back_together() {
    let service = Service::default();
    let open = || async {
        let busy = Problem::new(Reason::Unavailable, "not now").retry_after(Duration::from_secs(1));
        Err::<stream::Empty<Message>, _>(busy)
    };
    let join = |_| service.streams.join(&RPC, &Bytes::from("busy"), open, |_| None);
    let crowd: Vec<_> = (0..20).map(join).collect();
    let mut waits = Vec::new();
    for watcher in &crowd {
        waits.push(watcher.opened().await.unwrap_err().retry_delay().unwrap());
    }
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 10 && waits[0] >= Duration::from_secs(1), "{waits:?}");
}

#[tokio::test]
async fn a_panic_ends_the_stream_of_all_and_no_later_one() {
    let service = Service::default();
    let watch = |subject: fn(&&'static str) -> Option<String>| {
        let open = || async { Ok(stream::iter([Ok("a1")]).chain(stream::pending())) };
        service.streams.join(&RPC, &Bytes::from("a"), open, subject)
    };
    let mut broken = pin!(watch(|_| panic!("unlucky")).messages());
    let end = broken.next().await.unwrap().unwrap_err();
    assert_eq!(Problem::from_status(&end).reason(), Reason::Internal);
    let mut next = pin!(watch(|_| None).messages());
    assert_eq!(next.next().await.unwrap().unwrap(), "a1");
}

#[tokio::test]
async fn streams_that_nobody_watches_are_forgotten() {
    let service = Service::default();
    for number in 0..1_000 {
        let open = || async { Ok(stream::pending::<Message>()) };
        drop(service.streams.join(&RPC, &Bytes::from(number.to_string()), open, |_| None));
    }
    assert!(service.streams.table.lock().unwrap().streams.len() <= 2 * MIN_ENTRIES_TO_PURGE);
}
