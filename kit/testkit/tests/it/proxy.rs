//! A proxy forwards everything until it freezes, holds the right direction from there on, and can be thawed or cut. It
//! delays what it is told to, and breaks off a transaction at the right point, and no other. A link to Kafka does the
//! same to one client of Kafka.

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use stampede_testkit::{BreakAt, FreezeAt, KafkaLink, Proxy, Service, World, Writes};
use std::{pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

/// Long enough for bytes that are not held to arrive.
const A_MOMENT: Duration = Duration::from_millis(200);
/// Longest wait for what has to come, from Kafka or beside other tests.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Starts an echo server. Returns its URL and the writes that it receives.
async fn echo() -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("test://user:p%40ss@{}/path", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    sender.send(buffer[..length].to_vec()).unwrap();
                    stream.write_all(&buffer[..length]).await.unwrap();
                }
            });
        }
    });
    (url, received)
}

async fn client(proxy: &Proxy) -> TcpStream {
    let address = proxy.url().strip_prefix("test://user:p%40ss@").unwrap().strip_suffix("/path").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Returns the answer to a write; empty if the connection ends instead.
async fn ask(client: &mut TcpStream, write: &[u8]) -> Vec<u8> {
    client.write_all(write).await.unwrap();
    answer(client).await
}

async fn answer(client: &mut TcpStream) -> Vec<u8> {
    timeout(MAX_WAIT, read(client)).await.unwrap()
}

/// Whether a write gets no answer, and its connection does not end.
async fn is_held(client: &mut TcpStream, write: &[u8]) -> bool {
    client.write_all(write).await.unwrap();
    timeout(A_MOMENT, read(client)).await.is_err()
}

async fn read(client: &mut TcpStream) -> Vec<u8> {
    let mut buffer = [0; 64];
    let length = client.read(&mut buffer).await.unwrap();
    buffer[..length].to_vec()
}

#[tokio::test]
async fn the_write_before_which_it_freezes_does_not_come_through_until_it_is_thawed() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut client = client(&proxy).await;
    proxy.freeze(Writes::With(b"mark".to_vec()), FreezeAt::Before(2));
    for passed in ["mark 1", "other"] {
        assert_eq!(ask(&mut client, passed.as_bytes()).await, passed.as_bytes());
        assert_eq!(received.recv().await.unwrap(), passed.as_bytes());
    }
    assert!(!proxy.is_frozen());
    assert!(is_held(&mut client, b"mark 2").await);
    assert_eq!(proxy.frozen().await, b"mark 2");
    assert!(received.try_recv().is_err(), "it is held");
    assert_eq!(proxy.writes(), 2);
    proxy.thaw();
    assert_eq!(answer(&mut client).await, b"mark 2");
    assert_eq!(proxy.writes(), 3);
}

#[tokio::test]
async fn the_write_after_which_it_freezes_comes_through_and_its_answer_does_not() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let (mut followed, mut other) = (client(&proxy).await, client(&proxy).await);
    proxy.freeze(Writes::From(b"begin".to_vec()), FreezeAt::After(2));
    assert_eq!(ask(&mut followed, b"begin").await, b"begin");
    assert_eq!(ask(&mut other, b"begin too").await, b"begin too", "only the first connection counts");
    assert!(is_held(&mut followed, b"second").await);
    assert_eq!(proxy.frozen().await, b"second");
    for passed in ["begin", "begin too", "second"] {
        assert_eq!(received.recv().await.unwrap(), passed.as_bytes());
    }
    assert!(is_held(&mut other, b"third").await, "nothing passes on any connection");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn whatever_comes_while_it_stands_still_is_held_until_it_is_thawed() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut known = client(&proxy).await;
    assert_eq!(ask(&mut known, b"before").await, b"before");
    assert_eq!(received.recv().await.unwrap(), b"before");
    proxy.freeze_now();
    assert!(proxy.is_frozen());
    let mut new = client(&proxy).await;
    assert!(is_held(&mut known, b"held").await && is_held(&mut new, b"held too").await);
    assert!(received.try_recv().is_err(), "it is held on every connection");
    proxy.thaw();
    assert_eq!(answer(&mut known).await, b"held");
    assert_eq!(answer(&mut new).await, b"held too");
}

#[tokio::test]
async fn a_slow_proxy_delays_the_write_and_its_answer() {
    let (url, _received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut client = client(&proxy).await;
    assert_eq!(ask(&mut client, b"fast").await, b"fast");
    proxy.slow_down(A_MOMENT);
    let started = Instant::now();
    assert_eq!(ask(&mut client, b"slow").await, b"slow");
    assert!(started.elapsed() >= 2 * A_MOMENT);
}

fn producer(brokers: &str) -> FutureProducer {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

/// Returns once Kafka has acknowledged a record.
async fn produce(producer: &FutureProducer, topic: &str) {
    let record = FutureRecord::to(topic).key("key").payload("text");
    producer.send(record, MAX_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_waits_while_its_link_to_kafka_stands_still_and_others_do_not() {
    let world = World::new().unwrap();
    world.create_topics().await.unwrap();
    let topic = Service::Order.topic(world.topic_prefix());
    let link = KafkaLink::open().await.unwrap();
    let (linked, other) = (producer(link.brokers()), producer(world.brokers()));
    produce(&linked, &topic).await;
    link.freeze();
    let mut waiting = pin!(produce(&linked, &topic));
    assert!(timeout(A_MOMENT, &mut waiting).await.is_err(), "Kafka has heard of it");
    timeout(MAX_WAIT, produce(&other, &topic)).await.expect("Kafka goes on for others");
    assert!(timeout(A_MOMENT, &mut waiting).await.is_err(), "Kafka has heard of it");
    link.thaw();
    timeout(MAX_WAIT, waiting).await.expect("it goes on by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_test_at_a_time_has_the_link_to_kafka() {
    let first = KafkaLink::open().await.unwrap();
    let mut next = pin!(KafkaLink::open());
    assert!(timeout(A_MOMENT, &mut next).await.is_err(), "two have it");
    drop(first);
    next.await.unwrap();
}

#[tokio::test]
async fn a_cut_ends_every_connection_and_new_ones_are_free() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut held = client(&proxy).await;
    proxy.freeze(Writes::With(b"held".to_vec()), FreezeAt::Before(1));
    assert!(is_held(&mut held, b"held").await);
    proxy.cut();
    assert_ne!(answer(&mut held).await, b"held");
    assert!(received.try_recv().is_err(), "what was held is gone");
    assert!(!proxy.is_frozen());
    assert_eq!(ask(&mut client(&proxy).await, b"held").await, b"held");
}

const TRANSACTION: [&[u8]; 3] = [b"\x03BEGIN", b"\x03INSERT one, two", b"\x03COMMIT"];

/// Returns how many of these writes are answered, one after the other on a new connection.
async fn answered(proxy: &Proxy, writes: &[&[u8]]) -> usize {
    let mut client = client(proxy).await;
    let mut count = 0;
    for write in writes {
        if ask(&mut client, write).await != *write {
            break;
        }
        count += 1;
    }
    count
}

#[tokio::test]
async fn a_transaction_is_broken_off_once_at_its_point_and_no_other_one_is() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    for (at, of_client, of_server) in [(BreakAt::Write, 1, 1), (BreakAt::Commit, 2, 2), (BreakAt::Answer, 2, 3)] {
        let broken = proxy.break_off(&["one", "two"], at);
        assert_eq!(answered(&proxy, &TRANSACTION[1..]).await, 2, "in no transaction");
        assert_eq!(answered(&proxy, &[b"\x03BEGIN", b"\x03INSERT one", b"\x03COMMIT"]).await, 3, "of other writes");
        let rolled_back: [&[u8]; 3] = [b"\x03BEGIN", b"\x03ROLLBACK", b"one, two"];
        assert_eq!(answered(&proxy, &rolled_back).await, 3);
        while received.try_recv().is_ok() {}

        assert_eq!((answered(&proxy, &TRANSACTION).await, broken.count()), (of_client, 1), "{at:?}");
        let mut passed = 0;
        while received.try_recv().is_ok() {
            passed += 1;
        }
        assert_eq!(passed, of_server, "{at:?}");
        assert_eq!((answered(&proxy, &TRANSACTION).await, broken.count()), (3, 1), "{at:?}");
    }
}

#[tokio::test]
async fn a_lasting_break_goes_on_until_it_is_ended() {
    let (url, _received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let broken = proxy.keep_breaking(&["one"], BreakAt::Write);
    for count in 1..4 {
        assert_eq!((answered(&proxy, &TRANSACTION).await, broken.count()), (1, count));
    }
    broken.mend();
    assert_eq!((answered(&proxy, &TRANSACTION).await, broken.count()), (3, 3));
}
