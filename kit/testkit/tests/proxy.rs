//! A proxy lets all through until it freezes, holds what it should from there on, and can be thawed or cut.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use stampede_testkit::{FreezeAt, Proxy, Writes};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Long enough for what is not held to come through.
const A_MOMENT: Duration = Duration::from_millis(200);

/// A server that answers each write with itself. Returns its URL and what it is sent.
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

/// The answer to a write; none if it does not come.
async fn ask(client: &mut TcpStream, write: &[u8]) -> Option<Vec<u8>> {
    client.write_all(write).await.unwrap();
    answer(client).await
}

async fn answer(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    let length = timeout(A_MOMENT, client.read(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..length].to_vec())
}

#[tokio::test]
async fn the_write_before_which_it_freezes_does_not_come_through_until_it_is_thawed() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut client = client(&proxy).await;
    proxy.freeze(Writes::With(b"mark".to_vec()), FreezeAt::Before(2));
    for passed in ["mark 1", "other"] {
        assert_eq!(ask(&mut client, passed.as_bytes()).await.unwrap(), passed.as_bytes());
        assert_eq!(received.recv().await.unwrap(), passed.as_bytes());
    }
    assert!(!proxy.is_frozen());
    assert_eq!(ask(&mut client, b"mark 2").await, None);
    assert_eq!(proxy.frozen().await, b"mark 2");
    assert!(received.try_recv().is_err(), "it is held");
    proxy.thaw();
    assert_eq!(answer(&mut client).await.unwrap(), b"mark 2");
}

#[tokio::test]
async fn the_write_after_which_it_freezes_comes_through_and_its_answer_does_not() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let (mut followed, mut other) = (client(&proxy).await, client(&proxy).await);
    proxy.freeze(Writes::From(b"begin".to_vec()), FreezeAt::After(2));
    assert!(ask(&mut followed, b"begin").await.is_some());
    assert!(ask(&mut other, b"begin too").await.is_some(), "only the first connection counts");
    assert_eq!(ask(&mut followed, b"second").await, None);
    assert_eq!(proxy.frozen().await, b"second");
    for passed in ["begin", "begin too", "second"] {
        assert_eq!(received.recv().await.unwrap(), passed.as_bytes());
    }
    assert_eq!(ask(&mut other, b"third").await, None, "nothing passes on any connection");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_cut_ends_every_connection_and_new_ones_are_free() {
    let (url, mut received) = echo().await;
    let proxy = Proxy::to_url(&url).await.unwrap();
    let mut held = client(&proxy).await;
    proxy.freeze(Writes::With(b"held".to_vec()), FreezeAt::Before(1));
    assert_eq!(ask(&mut held, b"held").await, None);
    proxy.cut();
    assert_ne!(answer(&mut held).await, Some(b"held".to_vec()));
    assert!(received.try_recv().is_err(), "what was held is gone");
    assert!(!proxy.is_frozen());
    assert_eq!(ask(&mut client(&proxy).await, b"held").await.unwrap(), b"held");
}
