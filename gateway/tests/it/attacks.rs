//! Strangers who hold on to connections, bodies, answers and streams, on a real port. Whatever they hold, an honest
//! client is served in time, the process stays small ([`Victim`]), and what they held comes back by itself.

use crate::{
    raw::{Door, MAX_WAIT, closed_after, frame},
    victim::Victim,
};
use futures_util::future::join_all;
use std::{cell::Cell, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

/// The deadline of a head, in milliseconds: long enough for an honest client of a slow machine.
const HEAD_TIMEOUT: (&str, &str) = ("--head-timeout-ms", "1500");
/// Longest until a connection is closed for its deadline; less than the deadlines that hold without a flag.
const SOON: Duration = Duration::from_secs(8);
/// The path that a victim reads: the answer comes from a service.
const LIST: &str = "/v1/events";
/// The path at which a victim logs in.
const LOGIN: &str = "/v1/auth/tokens";
/// A flag for a victim who logs in as often as it can.
const UNLIMITED: (&str, &str) = ("--act-limits-factor", "0");
/// Connections of each kind that say nothing more.
const SILENT: usize = 25;

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_is_closed() {
    let door = Door::open(&[HEAD_TIMEOUT]).await;
    let victim = Victim::of(&door).await;
    let beginnings: [&[u8]; 4] = [
        b"",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nhost:",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let attack = || async {
        let closed = beginnings.repeat(SILENT).into_iter().map(|beginning| {
            let door = &door;
            async move {
                let mut socket = door.connect().await;
                socket.write_all(beginning).await.unwrap();
                let after = closed_after(&mut socket).await;
                assert!(after < SOON, "{beginning:?}: {after:?}");
            }
        });
        join_all(closed).await;
    };
    beside(&victim, attack).await;
}

/// Attacks until the victim was served, and once at least: it is served beside the attackers and not after them.
async fn beside<A: Future<Output = ()>>(victim: &Victim<'_>, attack: impl Fn() -> A) {
    let is_served = Cell::new(false);
    let attacks = async {
        attack().await;
        while !is_served.get() {
            attack().await;
        }
    };
    let served = async {
        victim.is_served("GET", LIST).await;
        is_served.set(true);
    };
    tokio::join!(attacks, served);
}

#[tokio::test]
async fn a_second_head_that_trickles_is_late_too() {
    let door = Door::open(&[HEAD_TIMEOUT]).await;
    let victim = Victim::of(&door).await;
    let is_closed = || async {
        let mut socket = door.connect().await;
        socket.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
        socket.write_all(b"GET /").await.unwrap();
        assert!(closed_after(&mut socket).await < SOON);
    };
    beside(&victim, || all_at_once(is_closed)).await;
}

/// Runs so many attackers of a kind.
async fn all_at_once<A: Future<Output = ()>>(attacker: impl Fn() -> A) {
    join_all((0..SILENT).map(|_| attacker())).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let door = Door::open(&[("--idle-timeout-ms", "1500"), ("--ping-interval-ms", "60000")]).await;
    let victim = Victim::of(&door).await;
    let is_closed = || async {
        let mut http1 = door.connect().await;
        http1.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert!(http1.read(&mut [0; 4096]).await.unwrap() > 0);
        assert!(closed_after(&mut http1).await < SOON);
    };
    beside(&victim, || all_at_once(is_closed)).await;
    let mut http2 = door.connect_http2().await;
    http2.open("HEAD", "/", true).await;
    http2.wait_for(frame::GOAWAY, 1).await;
    // It answers nothing, and so it is closed all the same.
    assert!(closed_after(&mut http2.socket).await < MAX_WAIT);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_leave() {
    let door = Door::open(&[("--max-connection-age-s", "1")]).await;
    let victim = Victim::of(&door).await;
    let mut http2 = door.connect_http2().await;
    http2.open("GET", "/v1/events:watch?event_ids=stay", true).await;
    tokio::join!(http2.wait_for(frame::GOAWAY, 1), victim.is_served("GET", LIST));
}

/// The attack is known as rapid reset: requests that are cancelled at once cost their client next to nothing.
#[tokio::test]
async fn a_client_that_cancels_its_requests_before_they_are_begun_is_cut() {
    let door = Door::open(&[]).await;
    let victim = Victim::of(&door).await;
    let is_cut = || async {
        let mut http2 = door.connect_http2().await;
        http2.open_and_cancel(100, "GET", LIST).await;
        assert!(closed_after(&mut http2.socket).await < SOON);
    };
    beside(&victim, || all_at_once(is_cut)).await;
}

#[tokio::test]
async fn one_address_has_its_share_of_connections_and_others_have_theirs() {
    let door = Door::open(&[("--max-connections", "16"), ("--address-share-percent", "25")]).await;
    let victim = Victim::from_address(&door, [127, 0, 0, 2]).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut socket = door.connect().await;
        // A request that is answered shows that the connection has its place.
        socket.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
        held.push(socket);
    }
    is_refused(&door).await;
    victim.is_served("GET", LIST).await;
    is_refused(&door).await;
    drop(held);
    door.ask_until("GET", "/", "200").await;
}

/// Checks that a connection for which there is no place is refused before it has sent anything.
async fn is_refused(door: &Door) {
    let (mut refused, mut answer) = (door.connect().await, String::new());
    let _ = refused.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"OVERLOADED\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_connections_are_taken_the_silent_make_room() {
    let door = Door::open(&[("--max-connections", "8"), ("--address-share-percent", "100")]).await;
    let victim = Victim::of(&door).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(door.connect().await);
    }
    let come_again = async {
        while silent.len() < 1_000 {
            silent.push(door.connect().await);
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = victim.is_served("GET", LIST) => {}
        () = come_again => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_come_hold_no_place() {
    let door = Door::open(&[("--max-in-flight", "8"), ("--address-share-percent", "100"), UNLIMITED]).await;
    let victim = Victim::of(&door).await;
    let mut attackers = Vec::new();
    for _ in 0..3 {
        let mut http2 = door.connect_http2().await;
        for _ in 0..100 {
            http2.open("POST", LOGIN, false).await;
        }
        attackers.push(http2);
    }
    assert!(door.ask("GET", "/").await.starts_with("HTTP/1.1 200"));
    victim.is_served("POST", LOGIN).await;
    for http2 in &mut attackers {
        http2.wait_for(frame::HEADERS, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_take_the_place_of_no_other_class_and_are_cut() {
    // Of 50 places 3 are kept for reads for all, 3 for logins, and 19 for whoever comes first.
    let flags = [("--max-in-flight", "50"), ("--address-share-percent", "100"), ("--read-stall-ms", "5000"), UNLIMITED];
    let door = Door::open(&flags).await;
    let victim = Victim::of(&door).await;
    let mut http2 = door.connect_http2().await;
    for _ in 0..60 {
        http2.open("GET", "/", true).await;
    }
    door.ask_until("GET", "/", "503").await;
    victim.is_served("POST", LOGIN).await;
    http2.wait_for(frame::RST_STREAM, 20).await;
    door.ask_until("GET", "/", "200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_are_not_read_are_bounded_by_their_bytes_and_cut() {
    // Beside what is kept for buyers and operators there is room for fifteen of them.
    let flags = [("--max-unread-bytes", "1400000"), ("--address-share-percent", "100"), ("--read-stall-ms", "5000")];
    let door = Door::open(&flags).await;
    let victim = Victim::of(&door).await;
    let large = "/v1/events?page_token=large";
    let mut http2 = door.connect_http2().await;
    for _ in 0..40 {
        http2.open("GET", large, true).await;
    }
    door.ask_until("GET", large, "503").await;
    victim.is_served("GET", LIST).await;
    http2.wait_for(frame::RST_STREAM, 15).await;
    door.ask_until("GET", large, "200").await;
}

#[tokio::test]
async fn an_answer_that_is_read_in_time_is_whole_however_large() {
    // An answer of 16 MB takes its time where nothing is optimised.
    let door = Door::open(&[("--request-timeout-ms", "30000")]).await;
    let answer = door.ask("GET", "/v1/events?page_token=large").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > 64 * 1024, "{} bytes", answer.len());
    assert!(answer.contains("content-length: ") && answer.ends_with('}'));
    // More than the share of one address, and yet a list that the contract allows.
    let answer = door.ask("GET", "/v1/events?page_size=100").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > 16_000_000, "{} bytes", answer.len());
}

/// The watchers of one service, and the calls to it, come over one connection each: who does not read stops nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_who_do_not_read_stop_no_call_and_free_their_places() {
    let flags = [
        // Of them 5 are kept for buyers who watch their order.
        ("--max-streams", "45"),
        ("--address-share-percent", "100"),
        ("--read-stall-ms", "8000"),
        // It answers none.
        ("--ping-interval-ms", "60000"),
        // Each read of the victim is a call.
        ("--shared-read-ms", "0"),
    ];
    let door = Door::open(&flags).await;
    let victim = Victim::of(&door).await;
    let path = "/v1/events:watch?event_ids=flood";
    let mut http2 = door.connect_http2().await;
    for _ in 0..40 {
        http2.open("GET", path, true).await;
    }
    http2.wait_for(frame::HEADERS, 40).await;
    assert!(door.ask("GET", path).await.starts_with("HTTP/1.1 503"), "all places of streams are held");
    victim.is_served("GET", LIST).await;
    http2.wait_for(frame::RST_STREAM, 40).await;
    door.ask_until("GET", "/v1/events:watch?event_ids=end", "200").await;
}

#[tokio::test]
async fn a_watcher_over_http1_who_does_not_read_is_cut() {
    let flags = [("--max-streams", "1"), ("--read-stall-ms", "500")];
    let door = Door::open(&flags).await;
    let victim = Victim::of(&door).await;
    let mut socket = door.connect().await;
    let request = b"GET /v1/events:watch?event_ids=flood HTTP/1.1\r\nhost: test\r\n\r\n";
    socket.write_all(request).await.unwrap();
    socket.readable().await.unwrap();
    victim.is_served("GET", LIST).await;
    // The kernels of both sides buffer a bounded amount; once that is full, the writer waits in vain.
    door.ask_until("GET", "/v1/events:watch?event_ids=end", "200").await;
}

#[tokio::test]
async fn who_asks_for_the_head_of_a_stream_holds_no_place() {
    // Beside those that are kept for buyers who watch their order there are 40 places.
    let door = Door::open(&[("--max-streams", "45"), ("--address-share-percent", "100")]).await;
    let stay = "/v1/events:watch?event_ids=stay";
    let request = format!("HEAD {stay} HTTP/1.1\r\nhost: test\r\n\r\n");
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut socket = door.connect().await;
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let read = socket.read(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
        kept.push(socket);
    }
    let mut heads = door.connect_http2().await;
    for _ in 0..20 {
        heads.open("HEAD", stay, true).await;
    }
    heads.wait_for(frame::HEADERS, 20).await;
    // Each place is free.
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut socket = door.connect().await;
        socket.write_all(format!("GET {stay} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "{} streams are open", streams.len());
        streams.push(socket);
    }
    assert!(door.ask("GET", stay).await.starts_with("HTTP/1.1 503"), "all places of streams are held");
    // Only now are their connections closed.
    drop((kept, heads, streams));
}

/// All deadlines are those that hold without a flag.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_watcher_that_vanished_without_a_word_frees_its_place_within_half_a_minute() {
    let door = Door::open(&[("--max-streams", "1")]).await;
    let mut socket = door.connect().await;
    let request = b"GET /v1/events:watch?event_ids=stay HTTP/1.1\r\nhost: test\r\n\r\n";
    socket.write_all(request).await.unwrap();
    assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
    let end = "/v1/events:watch?event_ids=end";
    assert!(door.ask("GET", end).await.starts_with("HTTP/1.1 503"), "the only place is held");
    crate::raw::vanish(&socket);
    let after = door.ask_until("GET", end, "200").await;
    assert!(after < Duration::from_secs(30), "{after:?}");
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_gone_and_its_stream_with_it() {
    let door = Door::open(&[("--ping-interval-ms", "1500"), ("--max-streams", "1")]).await;
    let victim = Victim::of(&door).await;
    let mut http2 = door.connect_http2().await;
    http2.open("GET", "/v1/events:watch?event_ids=stay", true).await;
    http2.wait_for(frame::HEADERS, 1).await;
    let (after, ()) = tokio::join!(closed_after(&mut http2.socket), victim.is_served("GET", LIST));
    assert!(after < Duration::from_secs(15), "without the flag it takes 20 s");
    door.ask_until("GET", "/v1/events:watch?event_ids=end", "200").await;
}
