//! Tokens: issued, verified, refreshed once, refused ever after.

use crate::front::{Front, token};
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

#[tokio::test]
async fn a_refresh_token_is_good_for_one_use_and_its_copy_shuts_the_family() {
    let front = Front::start(&[]).await;
    let first = front.new_buyer().await;
    let refresh = async |pair: &Value| {
        front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": pair["refresh_token"] })).await
    };
    let second = refresh(&first).await.json();
    assert_eq!(second["user_id"], first["user_id"]);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(verify(&front, &second["access_token"]).await["active"], true);

    let reused = refresh(&first).await;
    assert_eq!((reused.reason().as_str(), reused.status.as_u16()), ("TOKEN_REUSED", 401));
    assert_eq!(refresh(&second).await.reason(), "TOKEN_REUSED", "the valid one goes with it");
}

#[tokio::test]
async fn of_one_first_token_that_is_sent_many_times_at_once_one_is_exchanged() {
    let front = Front::start(&[]).await;
    let first = front.new_buyer().await;
    let body = json!({ "refresh_token": first["refresh_token"] });
    let sent = (0..8).map(|_| front.post("/v1/auth/tokens:refresh", "", &body));
    let answers = futures_util::future::join_all(sent).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 401 && answer.reason() == "TOKEN_REUSED").count(), 7);
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
    let front = Front::start(&[("--redis-url", &url)]).await;
    let used = front.new_buyer().await;
    for _ in 0..50 {
        front.new_buyer().await;
    }
    assert_eq!(redis.keys().await.unwrap(), 1, "the epoch, and nothing else");
    front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": used["refresh_token"] })).await;
    assert_eq!(redis.keys().await.unwrap(), 2);
}

#[tokio::test]
async fn a_redis_that_was_emptied_takes_no_token_from_before() {
    let redis = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    let front = Front::start(&[("--redis-url", &url)]).await;
    let refresh = async |pair: &Value| {
        front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": pair["refresh_token"] })).await
    };
    let (unused, used) = (front.new_buyer().await, front.new_buyer().await);
    let next = refresh(&used).await.json();
    redis.empty().await.unwrap();
    for pair in [&unused, &used, &next] {
        assert_eq!(refresh(pair).await.reason(), "TOKEN_EXPIRED", "nobody knows whether it was used");
    }
    assert_eq!(refresh(&front.new_buyer().await).await.status, 200);
}

#[tokio::test]
async fn tokens_expire() {
    let front = Front::start(&[("--access-ttl-s", "1"), ("--refresh-ttl-s", "1")]).await;
    let pair = front.new_buyer().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let access = pair["access_token"].as_str().unwrap();
    assert_eq!(front.get("/v1/orders", access).await.reason(), "TOKEN_EXPIRED");
    let refreshed = front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": pair["refresh_token"] })).await;
    assert_eq!(refreshed.reason(), "TOKEN_EXPIRED");
}
