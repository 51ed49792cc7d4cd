//! Limits on what callers do: by user, by address, by order, over all gateways, and off by a flag.

use crate::{
    front::{Answer, DEFAULT, Front, SECRET, from, good_token, request},
    grpc::WAITS_LONGER,
    meters::{Count, THROTTLED, UNASKED},
    orders,
    raw::Door,
    services,
};
use axum::Router;
use futures_util::{StreamExt, future::join_all, stream};
use http::StatusCode;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use stampede_vocab::{OrderId, UserId};
use std::{
    future::pending,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::DropGuard;
use uuid::Uuid;

/// Starts a gateway before an order service that accepts every order.
async fn front(flags: &[(&str, &str)]) -> (Front, DropGuard) {
    let (url, guard) = orders::serve().await;
    let flags: Vec<_> = [("--order-urls", url.as_str())].into_iter().chain(flags.iter().copied()).collect();
    (Front::start(&flags).await, guard)
}

/// Returns a token of a new user.
fn buyer() -> String {
    let claims = json!({
        "sub": UserId::random().to_string(), "role": "buyer", "iat": 0, "exp": 4_000_000_000_i64, "iss": "stampede",
        "jti": "1",
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn order_id(number: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(number))
}

async fn place(front: &Front, token: &str, request_id: &str, event_id: &str) -> Answer {
    let body = json!({ "request_id": request_id, "event_id": event_id });
    front.post("/v1/orders", token, &body).await
}

fn is_throttled(answer: &Answer, act: &str, by: &str) {
    assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("THROTTLED", 429), "{answer:?}");
    let metadata = &answer.json()["metadata"];
    assert_eq!((&metadata["act"], &metadata["by"]), (&json!(act), &json!(by)));
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&seconds), "{seconds}");
}

/// Returns the count of refusals of an act so far.
fn refusals(act: &str, by: &str) -> Count {
    Count::of(THROTTLED, &[("act", act), ("by", by)])
}

/// Returns the answers to many requests, of which fewer are under way at a time than one buyer may have.
async fn all<F: Future<Output = Answer>>(requests: impl Iterator<Item = F>) -> Vec<Answer> {
    stream::iter(requests).buffer_unordered(32).collect().await
}

fn throttled(answers: &[Answer]) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.status == 429).collect()
}

#[tokio::test]
async fn logins_are_limited_by_address_and_an_ipv6_network_is_one() {
    let front = Front::start(&[]).await;
    let login = |address: String| front.send(from(&address, request("POST", "/v1/auth/tokens", "", "{}")));
    // Each from another address of one network.
    let (counted, started) = (refusals("login", "address"), Instant::now());
    let answers = all((0..400).map(|n| login(format!("2001:db8::{n:x}")))).await;
    let refused = throttled(&answers);
    let more = usize::try_from(started.elapsed().as_millis() / 200).unwrap();
    let admitted = answers.len() - refused.len();
    assert!((300..=301 + more).contains(&admitted), "{admitted}: 300 at once, and one more each 200 ms");
    assert!(!refused.is_empty());
    refused.iter().for_each(|answer| is_throttled(answer, "login", "address"));
    counted.has_grown_by(refused.len());
    assert_eq!(login("2001:db8:0:1::1".to_owned()).await.status, 201, "the network beside it is another");
    assert_eq!(login("192.0.2.1".to_owned()).await.status, 201);
}

#[tokio::test]
async fn retry_delays_are_spread_so_that_nobody_comes_back_at_once() {
    let front = Front::start(&[]).await;
    let body = json!({ "refresh_token": front.new_buyer().await["refresh_token"] });
    let counted = refusals("refresh", "token");
    let answers = all((0..40).map(|_| front.post("/v1/auth/tokens:refresh", "", &body))).await;
    let refused = throttled(&answers);
    assert!(refused.len() >= 20, "{}", refused.len());
    refused.iter().for_each(|answer| is_throttled(answer, "refresh", "token"));
    counted.has_grown_by(refused.len());
    let mut waits: Vec<_> = refused.iter().map(|answer| answer.json()["retry_after_ms"].to_string()).collect();
    waits.sort();
    waits.dedup();
    assert!(waits.len() > refused.len() / 2, "{waits:?}");
}

#[tokio::test]
async fn claims_are_limited_by_user_and_one_who_claims_too_often_holds_up_nobody_else() {
    let front = Front::start(&[]).await;
    let (greedy, other) = (buyer(), buyer());
    let claim = |token: &str| {
        let body = json!({ "request_id": "r" }).to_string();
        front.send(from("192.0.2.7", request("POST", "/v1/campaigns/cmp_1:claim", token, &body)))
    };
    let counted = refusals("claim", "token");
    let answers = all((0..700).map(|_| claim(&greedy))).await;
    let refused = throttled(&answers);
    assert!(refused.len() >= 640, "{} of 700 were refused", refused.len());
    refused.iter().for_each(|answer| is_throttled(answer, "claim", "token"));
    counted.has_grown_by(refused.len());
    // There is no coupon service; the call shows that the limit let it through.
    assert_eq!(claim(&other).await.reason(), "UNAVAILABLE", "at the same address, which is not used up");
}

#[tokio::test]
async fn orders_that_nobody_pays_are_bounded_until_one_is_paid_or_cancelled() {
    let (front, _guard) = front(&[]).await;
    let token = buyer();
    let mut placed = Vec::new();
    for number in 0..5 {
        let answer = place(&front, &token, &format!("r-{number}"), "e").await;
        placed.push(answer.json()["order_id"].as_str().unwrap().to_owned());
    }
    let counted = refusals("order", "token");
    is_throttled(&place(&front, &token, "r-5", "e").await, "order", "token");
    counted.has_grown_by(1);
    assert_eq!(place(&front, &token, "r-0", "e").await.json()["order_id"], placed[0], "a repeat is no new order");
    let pay = json!({ "request_id": "p", "payment_method": "pm_card" });
    assert_eq!(front.post(&format!("/v1/orders/{}:pay", placed[0]), &token, &pay).await.status, 200);
    assert_eq!(place(&front, &token, "r-5", "e").await.status, 200);
    is_throttled(&place(&front, &token, "r-6", "e").await, "order", "token");
    let cancel = json!({ "request_id": "c" });
    assert_eq!(front.post(&format!("/v1/orders/{}:cancel", placed[1]), &token, &cancel).await.status, 200);
    assert_eq!(place(&front, &token, "r-6", "e").await.status, 200);
    assert_eq!(place(&front, &buyer(), "r-5", "e").await.status, 200, "another user has a bound of their own");
}

#[tokio::test]
async fn an_order_that_nobody_pays_is_open_until_its_deadline() {
    let (front, _guard) = front(&[]).await;
    for (seconds, waits_ms) in [(60, 30_000..=90_000), (3_600, 3_000_000..=5_400_000)] {
        let (token, event) = (buyer(), format!("pay-within-{seconds}"));
        for number in 0..5 {
            let answer = place(&front, &token, &format!("r-{number}"), &event).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let refused = place(&front, &token, "r-5", &event).await;
        assert_eq!(refused.reason(), "THROTTLED", "{refused:?}");
        let wait_ms = refused.json()["retry_after_ms"].as_u64();
        assert!(wait_ms.is_some_and(|wait_ms| waits_ms.contains(&wait_ms)), "{seconds} s: {refused:?}");
    }
}

#[tokio::test]
async fn a_late_answer_to_a_repeat_does_not_open_an_order_that_is_paid() {
    let (front, _guard) = front(&[]).await;
    let token = buyer();
    let mut placed = Vec::new();
    for number in 0..5 {
        let answer = place(&front, &token, &format!("r-{number}"), "e").await;
        placed.push(answer.json()["order_id"].as_str().unwrap().to_owned());
    }
    let path = format!("/v1/orders/{}:pay", placed[0]);
    let pay = json!({ "request_id": "p", "payment_method": "pm_card" });
    let (repeat, paid) = tokio::join!(place(&front, &token, "r-0", "late"), front.post(&path, &token, &pay));
    assert_eq!((&repeat.json()["order_id"], paid.status.as_u16()), (&json!(placed[0]), 200), "{repeat:?}");
    assert_eq!(repeat.json()["state"], "ORDER_STATE_AWAITING_PAYMENT");
    assert_eq!(place(&front, &token, "r-5", "e").await.status, 200, "four are open");
    is_throttled(&place(&front, &token, "r-6", "e").await, "order", "token");
}

#[tokio::test]
async fn who_learns_that_an_order_is_settled_may_place_the_next_by_any_gateway() {
    let (url, _guard) = orders::serve().await;
    let prefix = format!("test-gateway:{}:", UserId::random());
    let flags = [("--order-urls", url.as_str()), ("--redis-key-prefix", prefix.as_str())];
    let [here, there] = [Front::start(&flags).await, Front::start(&flags).await];
    let token = buyer();
    let mut placed = Vec::new();
    for number in 0..5 {
        let answer = place(&here, &token, &format!("r-{number}"), "e").await;
        placed.push(answer.json()["order_id"].as_str().unwrap().to_owned());
    }
    stampede_testkit::eventually("all of them count", || async {
        let answer = place(&there, &token, "r-5", "sold-out").await;
        answer.json()["detail"].as_str()?.contains("orders are open").then_some(())
    })
    .await;
    for (number, order) in placed.iter().take(3).enumerate() {
        let cancel = json!({ "request_id": "c" });
        assert_eq!(here.post(&format!("/v1/orders/{order}:cancel"), &token, &cancel).await.status, 200);
        let next = place(&there, &token, &format!("s-{number}"), "e").await;
        assert_eq!(next.status, 200, "{next:?}");
    }
}

#[tokio::test]
async fn an_order_that_an_operator_cancels_is_open_no_longer_for_its_buyer() {
    let (front, _guard) = front(&[]).await;
    let token = buyer();
    let mut placed = Vec::new();
    for number in 0..5 {
        let answer = place(&front, &token, &format!("r-{number}"), "e").await;
        placed.push(answer.json()["order_id"].as_str().unwrap().to_owned());
    }
    is_throttled(&place(&front, &token, "r-5", "e").await, "order", "token");
    let cancel = json!({ "request_id": "c" });
    let path = format!("/v1/orders/{}:cancel", placed[2]);
    assert_eq!(front.post(&path, &good_token("operator"), &cancel).await.status, 200);
    assert_eq!(place(&front, &token, "r-5", "e").await.status, 200);
    is_throttled(&place(&front, &token, "r-6", "e").await, "order", "token");
}

#[tokio::test]
async fn an_order_that_was_refused_is_not_open() {
    let (front, _guard) = front(&[]).await;
    let token = buyer();
    for number in 0..7 {
        assert_eq!(place(&front, &token, &format!("r-{number}"), "sold-out").await.reason(), "SOLD_OUT");
    }
    assert_eq!(place(&front, &token, "r-7", "e").await.status, 200);
}

#[tokio::test]
async fn whoever_hangs_up_before_the_answer_has_an_open_order_too() {
    let (reached, mut begun) = mpsc::unbounded_channel();
    let hangs = Router::new().fallback(move || {
        reached.send(()).unwrap();
        pending::<StatusCode>()
    });
    let (hangs, _hanging) = services::serve_router(hangs).await;
    let (url, _guard) = orders::serve().await;
    let prefix = format!("test-gateway:{}:", UserId::random());
    let shared = ("--redis-key-prefix", prefix.as_str());
    let silent = Front::start(&[("--order-urls", hangs.as_str()), shared, WAITS_LONGER]).await;
    let front = Front::start(&[("--order-urls", url.as_str()), shared]).await;
    let token = buyer();
    let request_ids: Vec<_> = (0..5).map(|number| format!("r-{number}")).collect();
    let orders = join_all(request_ids.iter().map(|request_id| place(&silent, &token, request_id, "e")));
    let all_begun = async {
        for _ in &request_ids {
            begun.recv().await.unwrap();
        }
    };
    // They hang up once the service has all of them.
    tokio::select! {
        answers = orders => panic!("they do not hang: {answers:?}"),
        () = all_begun => {}
    }
    stampede_testkit::eventually("all of them count", || async {
        let answer = place(&front, &token, "r-9", "sold-out").await;
        answer.json()["detail"].as_str()?.contains("orders are open").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_order_is_paid_a_few_times_however_its_id_is_written_and_a_stranger_takes_none_of_them() {
    let (front, _guard) = front(&[]).await;
    let id = order_id(7).to_string();
    let pay = |token: &str, number: u32| {
        // The same order by another path.
        let path = if number.is_multiple_of(2) { id.clone() } else { id.replacen("ord_", "%6Frd_", 1) };
        let body = json!({ "request_id": format!("p-{number}"), "payment_method": "pm_card_declined" }).to_string();
        front.send(request("POST", &format!("/v1/orders/{path}:pay"), token, &body))
    };
    for (who, token) in [("a stranger", buyer()), ("its buyer", buyer())] {
        for number in 0..6 {
            let answer = pay(&token, number).await;
            assert_eq!(answer.status, 200, "{who}, {number}: {answer:?}");
        }
        let counted = refusals("payment", "order");
        is_throttled(&pay(&token, 6).await, "payment", "order");
        is_throttled(&pay(&token, 7).await, "payment", "order");
        counted.has_grown_by(2);
    }
}

#[tokio::test]
async fn a_user_pays_and_cancels_so_many_orders() {
    let (front, _guard) = front(&[]).await;
    for (verb, act, most) in [("pay", "payment", 20), ("cancel", "cancel", 10)] {
        let token = buyer();
        let body = match verb {
            "pay" => json!({ "request_id": "p", "payment_method": "pm_card" }),
            _ => json!({ "request_id": "c" }),
        };
        let sent = (0..most + 5).map(|number| {
            let path = format!("/v1/orders/{}:{verb}", order_id(100 + number));
            front.send(request("POST", &path, &token, &body.to_string()))
        });
        let counted = refusals(act, "token");
        let answers = join_all(sent).await;
        let refused = throttled(&answers);
        assert!((4..=5).contains(&refused.len()), "{verb}: {}", refused.len());
        refused.iter().for_each(|answer| is_throttled(answer, act, "token"));
        counted.has_grown_by(refused.len());
    }
}

#[tokio::test]
async fn orders_that_one_address_leaves_unpaid_are_bounded_whoever_places_them() {
    let (front, _guard) = front(&[]).await;
    let place = |address: &str| {
        let body = json!({ "request_id": "r", "event_id": "e" }).to_string();
        front.send(from(address, request("POST", "/v1/orders", &buyer(), &body)))
    };
    for number in 0..100 {
        // Each by a new buyer, from another address of one network.
        assert_eq!(place(&format!("2001:db8::{number:x}")).await.status, 200, "{number}");
    }
    let counted = refusals("order", "address");
    let refused = place("2001:db8::ffff").await;
    is_throttled(&refused, "order", "address");
    counted.has_grown_by(1);
    assert!(refused.json()["detail"].as_str().unwrap().contains("orders are open"), "{refused:?}");
    assert_eq!(place("2001:db8:0:1::1").await.status, 200, "the network beside it is another");
}

#[tokio::test]
async fn one_address_does_so_much_of_each_act_however_many_users_it_has() {
    let (url, _guard) = services::serve_anything().await;
    let front = Front::start(&[("--order-urls", &*url), ("--coupon-urls", &*url)]).await;
    let pay = json!({ "request_id": "p", "payment_method": "pm_card" });
    let claim = json!({ "request_id": "r" });
    for (act, at_once, body, another) in
        [("claim", 600, &claim, "192.0.2.1"), ("payment", 300, &pay, "192.0.2.2"), ("cancel", 300, &claim, "192.0.2.3")]
    {
        let send = |number: u128, address: &str| {
            let path = match act {
                "claim" => "/v1/campaigns/cmp_1:claim".to_owned(),
                "payment" => format!("/v1/orders/{}:pay", order_id(number)),
                _ => format!("/v1/orders/{}:cancel", order_id(number)),
            };
            // Each by a new user, and of another order.
            front.send(from(address, request("POST", &path, &buyer(), &body.to_string())))
        };
        let (counted, begun) = (refusals(act, "address"), Instant::now());
        let answers = all((0..at_once + 50).map(|number| send(number, "198.51.100.7"))).await;
        let refused = throttled(&answers);
        // Ten claims a second more, and two of the others.
        let more = begun.elapsed().as_millis() / 100;
        let admitted = (answers.len() - refused.len()) as u128;
        assert!((at_once..=at_once + 1 + more).contains(&admitted), "{act}: {admitted}");
        refused.iter().for_each(|answer| is_throttled(answer, act, "address"));
        counted.has_grown_by(refused.len());
        assert_eq!(send(9_999, another).await.status, 200, "{act}: another address has a bound of its own");
        assert!(more >= 50 || !refused.is_empty(), "{act}");
    }
}

#[tokio::test]
async fn gateways_count_together_and_a_request_that_makes_no_sense_costs_nothing() {
    let (url, _guard) = orders::serve().await;
    let prefix = format!("test-gateway:{}:", UserId::random());
    let flags = [("--order-urls", url.as_str()), ("--redis-key-prefix", prefix.as_str())];
    let fronts = [Front::start(&flags).await, Front::start(&flags).await];
    let token = buyer();
    for _ in 0..20 {
        assert_eq!(fronts[0].post("/v1/orders", &token, &json!({ "lines": 7 })).await.reason(), "INVALID_FIELD");
    }
    for number in 0..10 {
        let answer = place(&fronts[number % 2], &token, &format!("r-{number}"), "sold-out").await;
        assert_eq!(answer.reason(), "SOLD_OUT", "{number}");
    }
    let answers = join_all((10..14).map(|number| {
        let (front, token) = (&fronts[number % 2], token.clone());
        async move { place(front, &token, &format!("r-{number}"), "sold-out").await }
    }))
    .await;
    assert!(!throttled(&answers).is_empty());
}

#[tokio::test]
async fn a_load_test_raises_all_limits_by_one_flag_or_does_without() {
    for factor in ["1000", "0"] {
        let (front, _guard) = front(&[("--act-limits-factor", factor)]).await;
        let token = buyer();
        let answers = all((0..100).map(|number| {
            let (front, token) = (&front, token.clone());
            async move { place(front, &token, &format!("r-{number}"), "e").await }
        }))
        .await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{factor}: {}", throttled(&answers).len());
    }
}

#[tokio::test]
async fn callers_are_let_through_at_once_while_redis_hangs() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    let (front, _guard) = front(&[("--redis-url", &url), ("--act-limits-wait-ms", DEFAULT)]).await;
    let token = buyer();
    assert_eq!(place(&front, &token, "r-0", "e").await.status, 200);
    let unasked = Count::of(UNASKED, &[]);
    // For longer than all of them take: then it would refuse the sixth.
    redis.pause(Duration::from_secs(60)).await.unwrap();
    let all = async {
        for number in 1..30 {
            assert_eq!(place(&front, &token, &format!("r-{number}"), "e").await.status, 200, "{number}");
        }
    };
    // If each of them waited, it would take 14 s.
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("they do not wait for Redis");
    unasked.has_grown_by(1);
}

#[tokio::test]
async fn a_server_tells_the_address_of_a_connection() {
    let door = Door::open(&[]).await;
    let mut stream = door.connect().await;
    let login = "POST /v1/auth/tokens HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n";
    let mut answers = String::new();
    let mut chunk = [0_u8; 16_384];
    // Far more than are allowed at once; one answer may take two reads.
    for _ in 0..2_000 {
        stream.write_all(login.as_bytes()).await.unwrap();
        let length = stream.read(&mut chunk).await.unwrap();
        answers.push_str(&String::from_utf8_lossy(&chunk[..length]));
        if answers.contains("HTTP/1.1 429 ") {
            return;
        }
    }
    panic!("all logins of one connection are admitted");
}
