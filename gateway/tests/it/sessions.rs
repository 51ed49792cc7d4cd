//! The end of a login: by its owner, on every gateway, and for streams that are open.

use crate::{
    front::{Answer, Front, good_token, request},
    orders,
};
use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stampede_testkit::{OwnRedis, eventually};
use std::time::Duration;

async fn revoke(front: &Front, body: Value) -> Answer {
    front.post("/v1/auth/tokens:revoke", "", &body).await
}

async fn refresh(front: &Front, pair: &Value) -> Answer {
    front.post("/v1/auth/tokens:refresh", "", &json!({ "refresh_token": pair["refresh_token"] })).await
}

fn access(pair: &Value) -> &str {
    pair["access_token"].as_str().unwrap()
}

async fn is_ended(front: &Front, pair: &Value) {
    assert_eq!(front.get("/v1/orders", access(pair)).await.reason(), "TOKEN_REVOKED");
    let refused = refresh(front, pair).await;
    assert_eq!((refused.reason().as_str(), refused.status.as_u16()), ("TOKEN_REVOKED", 401));
    assert!(refused.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
}

#[tokio::test]
async fn a_login_ends_by_any_of_its_tokens() {
    let front = Front::start(&[]).await;
    let unused = front.new_buyer().await;
    assert_eq!(revoke(&front, json!({ "refresh_token": unused["refresh_token"] })).await.status, 200);
    is_ended(&front, &unused).await;

    let used = refresh(&front, &front.new_buyer().await).await.json();
    assert_eq!(revoke(&front, json!({ "refresh_token": used["refresh_token"] })).await.status, 200);
    is_ended(&front, &used).await;

    let by_access = front.new_buyer().await;
    assert_eq!(revoke(&front, json!({ "access_token": access(&by_access) })).await.status, 200);
    is_ended(&front, &by_access).await;
    let again = revoke(&front, json!({ "access_token": access(&by_access) })).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, json!({})));
}

#[tokio::test]
async fn a_token_that_is_not_valid_ends_nothing_and_is_no_error() {
    let front = Front::start(&[]).await;
    let pair = refresh(&front, &front.new_buyer().await).await.json();
    let family = pair["refresh_token"].as_str().unwrap().split('_').nth(1).unwrap();
    for token in [format!("rt_{family}_{}", "0".repeat(64)), "rf_x".to_owned(), "nonsense".to_owned()] {
        assert_eq!(revoke(&front, json!({ "refresh_token": token })).await.status, 200, "{token}");
    }
    assert_eq!(revoke(&front, json!({ "access_token": "nonsense" })).await.status, 200);
    assert_ne!(front.get("/v1/orders", access(&pair)).await.status, 401);
    assert_eq!(refresh(&front, &pair).await.status, 200);
    assert_eq!(revoke(&front, json!({})).await.reason(), "INVALID_FIELD");
    let both = json!({ "refresh_token": "a", "access_token": "b" });
    assert_eq!(revoke(&front, both).await.reason(), "INVALID_FIELD");
}

#[tokio::test]
async fn a_token_made_by_hand_is_revoked_alone() {
    let front = Front::start(&[]).await;
    let token = good_token("operator");
    assert_eq!(revoke(&front, json!({ "access_token": token })).await.status, 200);
    assert_eq!(front.get("/v1/orders", &token).await.reason(), "TOKEN_REVOKED");
}

#[tokio::test]
async fn a_login_that_ends_at_one_gateway_ends_at_the_others_and_stays_so() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let url = redis.url();
    let flags = [("--redis-url", url.as_str()), ("--redis-key-prefix", "t:")];
    let (one, other) = (Front::start(&flags).await, Front::start(&flags).await);
    let pair = one.new_buyer().await;
    assert_ne!(other.get("/v1/orders", access(&pair)).await.status, 401);
    assert_eq!(revoke(&one, json!({ "access_token": access(&pair) })).await.status, 200);
    eventually("the other gateway knows", || async {
        (other.get("/v1/orders", access(&pair)).await.status == 401).then_some(())
    })
    .await;
    is_ended(&other, &pair).await;
    is_ended(&Front::start(&flags).await, &pair).await;
    redis.empty().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(one.get("/v1/orders", access(&pair)).await.reason(), "TOKEN_REVOKED", "what is known stays known");
}

const WATCH: &str = "/v1/orders/ord_0000000000000000000000001a:watch";

/// Opens a watch and reads its first message, which comes after the time.
async fn opened(front: &Front, path: &str, token: &str) -> Body {
    let mut body = front.open(request("GET", path, token, "")).await.into_body();
    for begins_with in ["event: time", "id: "] {
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(event.starts_with(begins_with.as_bytes()), "{event:?}");
    }
    body
}

async fn watch(front: &Front, token: &str) -> Body {
    opened(front, WATCH, token).await
}

/// Returns a path that opens the watch without a header.
async fn path_with_ticket(front: &Front, token: &str) -> String {
    let issued = front.post("/v1/auth/tickets", token, &json!({ "path": WATCH })).await.json();
    format!("{WATCH}?ticket={}", issued["ticket"].as_str().unwrap())
}

/// Opens a watch by a new token, and one by a ticket of that; fails if the machine stands still until it has expired.
async fn opened_by_both(front: &Front) -> Option<[Body; 2]> {
    let pair = front.new_buyer().await;
    let issued = front.post("/v1/auth/tickets", access(&pair), &json!({ "path": WATCH })).await.json();
    let with_ticket = format!("{WATCH}?ticket={}", issued["ticket"].as_str()?);
    let by_token = front.open(request("GET", WATCH, access(&pair), "")).await;
    let by_ticket = front.open(request("GET", &with_ticket, "", "")).await;
    let are_open = by_token.status() == 200 && by_ticket.status() == 200;
    are_open.then(|| [by_token.into_body(), by_ticket.into_body()])
}

async fn rest(body: Body) -> String {
    let rest = tokio::time::timeout(Duration::from_secs(30), body.collect()).await;
    String::from_utf8(rest.expect("the stream ends").unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let (url, _guard) = orders::serve().await;
    let front = Front::start(&[("--order-urls", &url), ("--access-ttl-s", "3")]).await;
    let opened = eventually("a new token opens both before it expires", || opened_by_both(&front)).await;
    for body in opened {
        let rest = rest(body).await;
        assert!(rest.contains("TOKEN_EXPIRED"), "{rest}");
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_login_does_and_no_other() {
    let (url, _guard) = orders::serve().await;
    let front = Front::start(&[("--order-urls", &url)]).await;
    let (leaves, stays) = (front.new_buyer().await, front.new_buyer().await);
    let (ended, mut open) = (watch(&front, access(&leaves)).await, watch(&front, access(&stays)).await);
    assert_eq!(revoke(&front, json!({ "refresh_token": leaves["refresh_token"] })).await.status, 200);
    let rest = rest(ended).await;
    assert!(rest.contains("TOKEN_REVOKED"), "{rest}");
    let quiet = tokio::time::timeout(Duration::from_millis(300), open.frame()).await;
    assert!(quiet.is_err(), "the other stream goes on");
}

#[tokio::test]
async fn a_ticket_is_of_the_login_that_asked_for_it_and_ends_with_it() {
    let (url, _guard) = orders::serve().await;
    let front = Front::start(&[("--order-urls", &url)]).await;
    let pair = front.new_buyer().await;
    let path = path_with_ticket(&front, access(&pair)).await;
    let open = opened(&front, &path, "").await;
    assert_eq!(revoke(&front, json!({ "access_token": access(&pair) })).await.status, 200);
    let rest = rest(open).await;
    assert!(rest.contains("TOKEN_REVOKED"), "{rest}");
    assert_eq!(front.get(&path, "").await.reason(), "TOKEN_REVOKED", "nor does it open another one");
}
