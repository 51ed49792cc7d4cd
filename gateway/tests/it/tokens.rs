//! Tokens: issued, verified, refreshed once, refused ever after.

use crate::front::{Answer, Front, SECRET, token};
use serde_json::{Value, json};

async fn verify(front: &Front, token: &Value) -> Value {
    front.post("/v1/auth/tokens:verify", "", &json!({ "access_token": token })).await.json()
}

#[tokio::test]
async fn a_new_buyer_gets_a_pair_that_works() {
    let front = Front::start(&[]).await;
    let pair = front.new_buyer().await;
    assert!(pair["user_id"].as_str().unwrap().starts_with("usr_"));
    assert!(pair["refresh_expires_at"].as_str() > pair["access_expires_at"].as_str(), "{pair}");
    let verified = verify(&front, &pair["access_token"]).await;
    let expected = json!({
        "active": true, "user_id": pair["user_id"], "role": "buyer", "expires_at": pair["access_expires_at"],
    });
    assert_eq!(verified, expected);
}

#[tokio::test]
async fn no_two_buyers_are_the_same() {
    let front = Front::start(&[]).await;
    let (one, other) = (front.new_buyer().await, front.new_buyer().await);
    for field in ["user_id", "access_token", "refresh_token"] {
        assert_ne!(one[field], other[field], "{field}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_inactive_and_no_error() {
    let front = Front::start(&[]).await;
    for token in [token("buyer", 1_000), token("service", 4_000_000_000), "nonsense".to_owned()] {
        assert_eq!(verify(&front, &json!(token)).await, json!({ "active": false }), "{token}");
    }
}

async fn refresh(front: &Front, pair: &Value) -> Answer {
    front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": pair["refresh_token"] })).await
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_gets_it_again() {
    let front = Front::start(&[]).await;
    let first = front.new_buyer().await;
    let second = refresh(&front, &first).await.json();
    assert_eq!(second["user_id"], first["user_id"]);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(refresh(&front, &first).await.json()["refresh_token"], second["refresh_token"], "of a first token");
    let third = refresh(&front, &second).await.json();
    assert_eq!(refresh(&front, &second).await.json()["refresh_token"], third["refresh_token"], "and of a later one");
    for pair in [&first, &second, &third] {
        assert_eq!(verify(&front, &pair["access_token"]).await["active"], true);
    }
    assert_eq!(refresh(&front, &third).await.status, 200);
}

#[tokio::test]
async fn a_refresh_is_repeated_while_the_key_changes() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let (url, new_key) = (redis.url(), "the next secret of the tests, of 32 bytes and more");
    let shared = [("--redis-url", url.as_str()), ("--redis-key-prefix", "t:")];
    let before = Front::start(&[shared[0], shared[1], ("--auth-secret-other", new_key)]).await;
    let after =
        Front::start(&[shared[0], shared[1], ("--auth-secret", new_key), ("--auth-secret-other", SECRET)]).await;
    let first = before.new_buyer().await;
    let second = refresh(&before, &first).await.json();
    assert_eq!(refresh(&after, &first).await.json()["refresh_token"], second["refresh_token"]);
    let third = refresh(&after, &second).await.json();
    for front in [&before, &after] {
        for pair in [&first, &second, &third] {
            assert_eq!(verify(front, &pair["access_token"]).await["active"], true);
        }
    }
    let old = Front::start(&[shared[0], shared[1]]).await;
    assert_eq!(verify(&old, &third["access_token"]).await["active"], false, "it does not have the new key");
}

#[tokio::test]
async fn a_copy_of_a_used_refresh_token_ends_its_login_with_its_access_tokens() {
    let front = Front::start(&[]).await;
    let first = front.new_buyer().await;
    let second = refresh(&front, &first).await.json();
    let third = refresh(&front, &second).await.json();
    let reused = refresh(&front, &first).await;
    assert_eq!((reused.reason().as_str(), reused.status.as_u16()), ("TOKEN_REUSED", 401));
    assert_eq!(refresh(&front, &third).await.reason(), "TOKEN_REUSED", "the valid one goes with it");
    for pair in [&first, &second, &third] {
        let access = pair["access_token"].as_str().unwrap();
        assert_eq!(front.get("/v1/orders", access).await.reason(), "TOKEN_REVOKED");
        assert_eq!(verify(&front, &pair["access_token"]).await, json!({ "active": false }));
    }
}

#[tokio::test]
async fn one_refresh_token_that_is_sent_many_times_at_once_has_one_successor() {
    let front = Front::start(&[]).await;
    let first = front.new_buyer().await;
    let answers = futures_util::future::join_all((0..8).map(|_| refresh(&front, &first))).await;
    let next = answers[0].json()["refresh_token"].clone();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json()["refresh_token"] == next));
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token_nor_the_other_way_round() {
    let front = Front::start(&[]).await;
    let pair = front.new_buyer().await;
    let refresh = pair["refresh_token"].as_str().unwrap();
    for text in [refresh, refresh.trim_start_matches("rf_")] {
        assert_eq!(verify(&front, &json!(text)).await, json!({ "active": false }), "{text}");
    }
    let access = pair["access_token"].as_str().unwrap();
    for text in [access.to_owned(), format!("rf_{access}")] {
        let refused = front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": text })).await;
        assert_eq!(refused.reason(), "UNAUTHENTICATED", "{text}");
    }
}

#[tokio::test]
async fn a_login_is_written_down_nowhere_until_it_is_refreshed() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    // Counts of acts would be stored too.
    let front = Front::start(&[("--redis-url", &url), ("--act-limits-factor", "0")]).await;
    let used = front.new_buyer().await;
    for _ in 0..50 {
        front.new_buyer().await;
    }
    assert_eq!(redis.keys().await.unwrap(), 1, "the epoch, and nothing else");
    refresh(&front, &used).await;
    assert_eq!(redis.keys().await.unwrap(), 2);
}

#[tokio::test]
async fn a_redis_that_was_emptied_takes_no_token_from_before() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    let front = Front::start(&[("--redis-url", &url)]).await;
    let (unused, used) = (front.new_buyer().await, front.new_buyer().await);
    let next = refresh(&front, &used).await.json();
    redis.empty().await.unwrap();
    for pair in [&unused, &used, &next] {
        assert_eq!(refresh(&front, pair).await.reason(), "TOKEN_EXPIRED", "nobody knows whether it was used");
    }
    assert_eq!(refresh(&front, &front.new_buyer().await).await.status, 200);
}

#[tokio::test]
async fn who_logs_in_or_refreshes_while_redis_reads_its_data_is_put_off() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    let front = Front::start(&[("--redis-url", &url)]).await;
    let (unused, used) = (front.new_buyer().await, front.new_buyer().await);
    let next = refresh(&front, &used).await.json();
    let redis = redis.restart_loading().await.unwrap();
    let login = front.post("/v1/auth/tokens", "", &json!({})).await;
    for answer in [login, refresh(&front, &unused).await, refresh(&front, &next).await] {
        assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("UNAVAILABLE", 503), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert!(redis.is_loading().await, "it has read its data too soon");
    redis.finish_loading().await.unwrap();
    front.new_buyer().await;
    for pair in [&unused, &next] {
        let answer = refresh(&front, pair).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn tokens_expire() {
    let front = Front::start(&[("--access-ttl-s", "1"), ("--refresh-ttl-s", "1")]).await;
    let pair = front.new_buyer().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let access = pair["access_token"].as_str().unwrap();
    assert_eq!(front.get("/v1/orders", access).await.reason(), "TOKEN_EXPIRED");
    assert_eq!(refresh(&front, &pair).await.reason(), "TOKEN_EXPIRED");
}

#[tokio::test]
async fn used_logins_do_not_fill_the_redis_that_sells() {
    let redis = stampede_testkit::OwnRedis::start(&[("maxmemory", "50mb")]).await.unwrap();
    let url = redis.url();
    let front = Front::start(&[("--redis-url", &url)]).await;
    let known = refresh(&front, &front.new_buyer().await).await.json();
    redis.fill(42).await.unwrap();
    let (new, refused) = stampede_testkit::eventually("a login more is refused", || async {
        let new = front.new_buyer().await;
        let answer = refresh(&front, &new).await;
        (answer.status == 503).then_some((new, answer))
    })
    .await;
    assert_eq!(refused.reason(), "OVERLOADED");
    assert_eq!(refresh(&front, &known).await.status, 200, "one that is there takes no more room");
    let access = new["access_token"].as_str().unwrap();
    assert_ne!(front.get("/v1/orders", access).await.status, 401, "and the new one can buy for a while");
}
