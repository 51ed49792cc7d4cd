//! Plays of the gateway's own rows: logins and tickets, over HTTP.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use stampede_testkit::{Mesh, Process};

/// Plays the row of a path. Returns the answer to another request under the same key.
pub async fn play(mesh: &Mesh, call: &str) -> Option<String> {
    let path = call.trim_start_matches("POST ");
    match path {
        "/v1/auth/tokens" => {
            assert_ne!(login(mesh).await["user_id"], login(mesh).await["user_id"], "two logins are of one buyer");
            None
        }
        "/v1/auth/tokens:refresh" => Some(refreshed(mesh, path).await),
        "/v1/auth/tokens:revoke" => {
            revoked(mesh, path).await;
            None
        }
        "/v1/auth/tickets" => {
            let pair = login(mesh).await;
            for _ in 0..2 {
                let body = json!({"path": "/v1/events/evt_0000000000000000000000001a/stock:watch"});
                let (status, ticket) = post(mesh, path, text(&pair, "access_token"), &body).await;
                assert_eq!(status, StatusCode::CREATED, "{ticket}");
            }
            None
        }
        _ => panic!("{call}: say here how it is played"),
    }
}

/// The same token gets the same next one, until that one is used.
async fn refreshed(mesh: &Mesh, path: &str) -> String {
    let pair = login(mesh).await;
    let presented = json!({"refresh_token": pair["refresh_token"]});
    let (status, first) = post(mesh, path, "", &presented).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_ne!(first["refresh_token"], pair["refresh_token"]);
    let (status, again) = post(mesh, path, "", &presented).await;
    assert_eq!(status, StatusCode::OK, "{again}");
    assert_eq!((&again["refresh_token"], &again["user_id"]), (&first["refresh_token"], &first["user_id"]));

    let (status, next) = post(mesh, path, "", &json!({"refresh_token": first["refresh_token"]})).await;
    assert_eq!(status, StatusCode::OK, "{next}");
    let (status, refused) = post(mesh, path, "", &presented).await;
    format!("{} {}", status.as_u16(), text(&refused, "reason"))
}

async fn revoked(mesh: &Mesh, path: &str) {
    let pair = login(mesh).await;
    let presented = json!({"refresh_token": pair["refresh_token"]});
    for _ in 0..2 {
        let (status, answer) = post(mesh, path, "", &presented).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let (status, refused) = post(mesh, "/v1/auth/tokens:refresh", "", &presented).await;
    assert_eq!((status, text(&refused, "reason")), (StatusCode::UNAUTHORIZED, "TOKEN_REVOKED"));
}

async fn login(mesh: &Mesh) -> Value {
    let (status, pair) = post(mesh, "/v1/auth/tokens", "", &json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{pair}");
    pair
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_else(|| panic!("{answer} has no {field}"))
}

async fn post(mesh: &Mesh, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
    let uri = format!("{}{path}", mesh.url(Process::Gateway));
    let mut request = Request::post(uri).header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request.body(Full::from(body.to_string())).unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}
